// Draws the detected objects over the picture.

/**
 * Draw a scene at `scale`, with letters of `size` pixels. Small objects cover large ones.
 *
 * scene: {picture, width, height, classes, objects, masks, boxes, names}. The last three are
 * booleans: whether to draw them.
 */
export function paint(context, scene, scale, size) {
  const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  const objects = [...scene.objects].sort((a, b) => area(b) - area(a));
  const parts = [[scene.masks, paintMask], [scene.boxes, paintBox], [scene.names, paintName]];
  context.imageSmoothingQuality = "high";
  context.drawImage(scene.picture, 0, 0, scene.width * scale, scene.height * scale);
  context.lineJoin = "round";
  for (const [isShown, paintPart] of parts) {
    if (!isShown) continue;
    for (const object of objects) paintPart(context, object, scene.classes[object.class], scale, size);
  }
}

function paintMask(context, object, { colour }, scale, size) {
  const path = new Path2D();
  for (const points of object.outlines) {
    path.moveTo((points[0] + 0.5) * scale, (points[1] + 0.5) * scale);
    for (let i = 2; i < points.length; i += 2) {
      path.lineTo((points[i] + 0.5) * scale, (points[i + 1] + 0.5) * scale);
    }
    path.closePath();
  }
  context.fillStyle = `${colour}73`; // 45 %
  context.strokeStyle = colour;
  context.lineWidth = size / 10;
  context.fill(path, "evenodd");
  context.stroke(path);
}

function paintBox(context, object, { colour }, scale, size) {
  const [x0, y0, x1, y1] = object.box.map((x) => x * scale);
  context.strokeStyle = colour;
  context.lineWidth = size / 6;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
}

// The label stands on the upper edge of the box, or inside the box if there is no room above.
function paintName(context, object, { name, colour }, scale, size) {
  const text = `${name} ${object.score.toFixed(2)}`;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.6;
  const height = size * 1.4;
  const x = Math.max(0, Math.min(object.box[0] * scale, context.canvas.width - width));
  const top = object.box[1] * scale;
  const y = top >= height ? top - height : top;
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x + size * 0.3, y + height / 2);
}
