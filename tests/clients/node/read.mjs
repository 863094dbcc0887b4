// Events in structured mode, read and written again, one a line: node read.mjs CONTENT-TYPE <list-of-bodies.json
import { readFileSync } from "node:fs";
import { HTTP } from "cloudevents";

for (const body of JSON.parse(readFileSync(0))) {
  const event = HTTP.toEvent({ headers: { "content-type": process.argv[1] }, body });
  event.validate();
  console.log(HTTP.structured(event).body);
}
