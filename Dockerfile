# d2_isonet with torch and detectron2 0.6, without a compiler.
#   docker build --tag d2_isonet .
#   docker run --rm d2_isonet                                        the arguments of train_net.py
#   docker run --rm d2_isonet tools/quickstart.py --source shapes    the whole chain, on a CPU
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONUNBUFFERED=1
RUN useradd --create-home user && install --directory --owner user /home/user/d2_isonet
WORKDIR /home/user/d2_isonet

# The largest layers first, and alone: they change least.
COPY constraints.txt ./
RUN python -m pip install --constraint constraints.txt torch torchvision
COPY third_party third_party
RUN python -m pip install --constraint constraints.txt ./third_party/detectron2
COPY --chown=user . .
RUN python -m pip install --constraint constraints.txt --editable ".[demo,report]"

USER user
ENTRYPOINT ["python"]
CMD ["train_net.py", "--help"]
