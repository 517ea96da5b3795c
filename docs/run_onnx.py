"""Run an exported detector with numpy, Pillow and onnxruntime alone.

python docs/run_onnx.py output/export/detector.onnx photo.jpg
"""

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # Pillow runs programs for others


class Detector:
    """An .onnx file of tools/export_model.py; detector(photo) gives one dict an object."""

    def __init__(self, path: str):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        # what the network wants its pixels to be travels in the file
        self.record = json.loads(self.session.get_modelmeta().custom_metadata_map["d2_isonet"])

    def __call__(self, photo: Image.Image) -> list[dict]:
        photo = ImageOps.exif_transpose(photo).convert("RGB")
        image = self.prepare(photo)
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(None, {"image": image}), strict=True))
        scale = np.divide(photo.size * 2, image.shape[:0:-1] * 2)  # x, y, x, y
        boxes = np.clip(found["boxes"] * scale, 0, photo.size * 2)
        objects = []
        for i, box in enumerate(boxes):
            name = self.record["class_names"][found["classes"][i]]
            objects.append({"name": name, "score": float(found["scores"][i]), "box": box.tolist()})
            if "masks" in found:
                objects[-1]["mask"] = paste(found["masks"][i], box, photo.size)
        return objects

    def prepare(self, photo: Image.Image) -> np.ndarray:
        """(3, H, W), float32 of range 0-255, resized and in the channel order of the record."""
        rule, sides, scale = self.record["resize"], np.array(photo.size), 1.0
        if rule["shorter_side"]:  # 0: as it is
            scale = min(rule["shorter_side"] / min(sides), rule["longer_side_at_most"] / max(sides))
        width, height = (sides * scale + 0.5).astype(int).tolist()
        pixels = np.asarray(photo.resize((width, height), Image.BILINEAR), np.float32)
        if self.record["input"]["channel_order"] == "BGR":
            pixels = pixels[:, :, ::-1]
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask (M, M) of a box as pixels (height, width), bilinear, nothing around it."""

    def weights(length: int, start: float, end: float) -> np.ndarray:
        """(length, M): how much each cell of the mask has to say at each pixel's centre."""
        cells = len(mask)
        position = (np.arange(length) + 0.5 - start) / max(end - start, 1e-9) * cells - 0.5
        return np.clip(1 - np.abs(position[:, None] - np.arange(cells)), 0, None)

    x0, y0, x1, y1 = box
    return weights(size[1], y0, y1) @ mask @ weights(size[0], x0, x1).T >= 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector", help=".onnx file")
    parser.add_argument("photo", nargs="+")
    parser.add_argument("--score", type=float, default=0.5, help="least score that is shown (0.5)")
    args = parser.parse_args()
    detector = Detector(args.detector)
    for file in args.photo:
        for found in detector(Image.open(file, formats=FORMATS)):
            if found["score"] < args.score:
                continue
            box = " ".join(f"{side:.1f}" for side in found["box"])
            area = f", {found['mask'].sum()} pixels" if "mask" in found else ""
            print(f"{file}: {found['name']} {found['score']:.3f} at {box}{area}")


if __name__ == "__main__":
    main()
