// Requests to the server. A failure becomes an Error whose message the page shows.

const NO_ANSWER = "The server does not answer. Is it still running?";

export async function readSettings() {
  try {
    return await (await fetch("/settings")).json();
  } catch {
    throw new Error(NO_ANSWER);
  }
}

/** The objects in an image file. Throws an AbortError if `signal` cancels the request. */
export async function detect(file, signal) {
  const headers = { "Content-Type": "application/octet-stream" };
  let response;
  try {
    response = await fetch("/detect", { method: "POST", body: file, signal, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(NO_ANSWER);
  }
  const isJson = (response.headers.get("Content-Type") || "").includes("json");
  const body = isJson ? await response.json() : {};
  if (!response.ok) throw new Error(`${file.name}: ${body.error || `the server answered with status ${response.status}`}`);
  return body;
}
