"""A COCO json of two images: an object with a polygon, and a crowd with an RLE."""

COCO = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 8, "height": 6} for i in (1, 2)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0,
         "segmentation": [[1, 1, 5, 1, 5, 5]]},
        {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 1,
         "segmentation": {"counts": [8, 40], "size": [6, 8]}},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "tree"}],
}  # fmt: skip
