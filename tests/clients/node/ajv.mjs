// What ajv, strict, says of events: node ajv.mjs <{"schemas": {name: schema}, "events": [{"schema": name, "event": ...}]}
import { readFileSync } from "node:fs";
import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";

const { schemas, events } = JSON.parse(readFileSync(0));
const ajv = addFormats.default(new Ajv2020.default({ strict: true, allErrors: true }));
const validators = Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, ajv.compile(schema)]));
console.log(JSON.stringify(events.map(({ schema, event }) => validators[schema](event))));
