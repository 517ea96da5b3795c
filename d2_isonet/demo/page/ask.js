// Talking to the server; what goes wrong becomes an Error with words for a person.

const NO_ANSWER = "The server does not answer. Is it still running?";

export async function readSettings() {
  try {
    return await (await fetch("/settings")).json();
  } catch {
    throw new Error(NO_ANSWER);
  }
}

/** What the server says of an image file; throws an AbortError where `signal` ends it. */
export async function ask(file, signal) {
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
  if (!response.ok) throw new Error(`${file.name}: ${body.error || `the server says ${response.status}`}`);
  return body;
}
