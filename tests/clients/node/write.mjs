// An event in the binary mode of a binding: node write.mjs HTTP <event.json
import { readFileSync } from "node:fs";
import { CloudEvent, HTTP, Kafka } from "cloudevents";

const { headers, body, value } = { HTTP, Kafka }[process.argv[1]].binary(new CloudEvent(JSON.parse(readFileSync(0))));
const data = value ?? body;
console.log(JSON.stringify({ headers, body: typeof data === "string" ? data : JSON.stringify(data) }));
