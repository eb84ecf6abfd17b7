// Calls of the cloud's API. Parameters have the names of the AWS API's model, so that the
// call and the AWS CLI command that does the same are made of one value.

export const session = await (await fetch("session")).json();

export const where = {
  region: localStorage.getItem("region") ?? session.region,
  account: session.accounts.some((a) => a.id === localStorage.getItem("account")) ? localStorage.getItem("account") : session.accounts[0].id,
};

export class APIError extends Error {
  constructor(code, message) {
    super(message || code);
    this.code = code;
  }
}

// What the query protocol calls lists, where it is not as the model does.
const queryNames = {
  TagSpecifications: "TagSpecification", Tags: "Tag", SecurityGroupIds: "SecurityGroupId", Filters: "Filter", Values: "Value", ImageIds: "ImageId",
  InstanceIds: "InstanceId", SnapshotIds: "SnapshotId", VolumeIds: "VolumeId", Owners: "Owner", ExecutableUsers: "ExecutableBy", GroupIds: "GroupId",
  BlockDeviceMappings: "BlockDeviceMapping", Resources: "ResourceId", SecurityGroupRuleIds: "SecurityGroupRuleId", RegionNames: "RegionName", UserIds: "UserId",
};

const namesOf = { CreateSecurityGroup: { Description: "GroupDescription" } };

function query(params, prefix, into) {
  for (const [key, value] of Object.entries(params)) {
    if (value === undefined || value === null || value === "") continue;
    const name = prefix + (queryNames[key] ?? key);
    if (Array.isArray(value)) {
      value.forEach((v, i) => (typeof v === "object" ? query(v, `${name}.${i + 1}.`, into) : into.append(`${name}.${i + 1}`, v)));
    } else if (typeof value === "object") query(value, `${name}.`, into);
    else into.append(name, value);
  }
  return into;
}

// parse turns an element into text, a list or an object with the names that XML has.
function parse(e) {
  const children = [...e.children];
  if (children.length === 0) return e.textContent;
  if (children.every((c) => c.localName === "item")) return children.map(parse);
  const object = {};
  for (const c of children) object[c.localName] = parse(c);
  return object;
}

// served is the port of this host at which a port of a machine is served.
export const served = (port) => session.ports[port] ?? port;

export const list = (v) => (Array.isArray(v) ? v : []);
export const tag = (row, key) => list(row.tagSet).find((t) => t.key === key)?.value ?? "";

async function post(region, service, type, body, target) {
  const headers = { "Content-Type": type };
  if (target) headers["X-Amz-Target"] = target;
  let answer;
  try {
    answer = await fetch(`api/${where.account}/${region}/${service}`, { method: "POST", headers, body });
  } catch {
    throw new APIError("Unreachable", "The cloud does not answer. Is \"bake cloud up\" still running?");
  }
  if (answer.status === 401 || answer.status === 403 && (await answer.clone().text()).startsWith("The console")) {
    throw new APIError("Unauthorized", await answer.text());
  }
  return answer;
}

export async function ec2(action, params = {}, region = where.region) {
  const named = Object.fromEntries(Object.entries(params).map(([k, v]) => [namesOf[action]?.[k] ?? k, v]));
  const body = query(named, "", new URLSearchParams({ Action: action, Version: "2016-11-15" }));
  const answer = await post(region, "ec2", "application/x-www-form-urlencoded; charset=utf-8", body.toString());
  const text = await answer.text();
  const xml = new DOMParser().parseFromString(text, "text/xml");
  if (!answer.ok) {
    throw new APIError(xml.querySelector("Error > Code")?.textContent ?? String(answer.status), xml.querySelector("Error > Message")?.textContent ?? text);
  }
  return parse(xml.documentElement);
}

export async function ssm(action, params = {}, region = where.region) {
  const answer = await post(region, "ssm", "application/x-amz-json-1.1", JSON.stringify(params), `AmazonSSM.${action}`);
  const text = await answer.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new APIError(String(answer.status), text);
  }
  if (!answer.ok) throw new APIError((value.__type ?? String(answer.status)).replace(/^.*#/, ""), value.message ?? value.Message ?? "");
  return value;
}

const kebab = (name) => name.replace(/([a-z0-9])([A-Z])/g, "$1-$2").replace(/([A-Z]+)([A-Z][a-z])/g, "$1-$2").toLowerCase();
export const quote = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);

// cli is the command of the AWS CLI that makes a call.
export function cli(service, action, params, region = where.region) {
  const literal = {};
  const words = ["aws", service, kebab(action), "--region", region];
  const profile = session.accounts.find((a) => a.id === where.account)?.profile;
  if (profile && profile !== "default") words.push("--profile", profile);
  for (const [key, value] of Object.entries(params)) {
    if (value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0)) continue;
    if (key === "MinCount") continue;
    if (typeof value === "string" && /^(fileb?|https?):\/\//.test(value)) { // of such an argument the AWS CLI would read the file
      literal[key] = value;
      continue;
    }
    const name = key === "MaxCount" ? "--count" : `--${kebab(key)}`;
    if (typeof value === "boolean") words.push(value ? name : `--no-${name.slice(2)}`.replace("--no-no-", "--"));
    else if (Array.isArray(value) && value.every((v) => typeof v !== "object")) words.push(name, ...value.map(quote));
    else if (typeof value === "object") words.push(name, quote(JSON.stringify(value)));
    else words.push(name, quote(value));
  }
  if (Object.keys(literal).length) words.push("--cli-input-json", quote(JSON.stringify(literal)));
  return words.join(" ");
}
