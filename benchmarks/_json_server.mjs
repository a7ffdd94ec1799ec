// A server in Node's own http module that answers JSON: what both of our Node programs are, but for the answer.
import { createServer } from "node:http";

// Serve `answer`, from a request's body to what is said of it, until whoever started the program is gone. An error of
// it is a 400 with its words.
export function serve(answer) {
  const server = createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", async () => {
      let status = 200;
      let said;
      try {
        said = await answer(Buffer.concat(parts).toString());
      } catch (error) {
        status = 400;
        said = { error: error.message };
      }
      const text = JSON.stringify(said);
      response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
      response.end(text);
    });
  });
  server.keepAliveTimeout = 60000;
  server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
  // Whoever started it is gone.
  process.stdin.on("end", () => process.exit(0)).resume();
}
