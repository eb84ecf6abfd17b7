import { el, link, external, state, time, facts, copyButton, table, changes, enable, replace } from "./dom.js";
import { ec2, list, tag, served } from "./api.js";
import { ask, tagsOf, tagsFor } from "./dialogs.js";
import { tagsList, pages } from "./shared.js";

const instancesIn = (answer) => list(answer.reservationSet).flatMap((r) => list(r.instancesSet));

export async function instances(main) {
  let chosen = [];
  const buttons = {};
  const act = (title, action, params, button, danger, warning) => ask({
    title, button, danger, warning, intro: chosen.map((i) => tag(i, "Name") || i.instanceId).join(", "),
    calls: () => [{ action, params: { InstanceIds: chosen.map((i) => i.instanceId), ...params } }], said: `${button}: asked.`,
  });
  const make = (key, text, on, ...rest) => (buttons[key] = el("button", { disabled: true, onclick: on }, text));
  const t = table({
    label: "Instances", id: (i) => i.instanceId, tells: (i) => [tag(i, "Name") || i.instanceId, i.instanceState.name], none: "There are no instances in this region.",
    columns: [
      ["Name", (i) => tag(i, "Name")], ["Instance", (i) => link(i.instanceId, `#/instances/${i.instanceId}`)], ["State", (i) => state(i.instanceState.name)],
      ["Type", (i) => i.instanceType], ["Image", (i) => link(i.imageId, `#/images/${i.imageId}`)], ["Public address", (i) => i.ipAddress], ["Key pair", (i) => i.keyName], ["Launched", (i) => time(i.launchTime)],
    ],
    select: (rows) => {
      chosen = rows;
      const states = rows.map((r) => r.instanceState.name);
      const every = (...s) => states.length > 0 && states.every((x) => s.includes(x));
      enable(buttons.connect, rows.length === 1 && every("running"));
      enable(buttons.start, every("stopped"));
      enable(buttons.stop, every("running"));
      enable(buttons.reboot, every("running"));
      enable(buttons.image, rows.length === 1 && every("running", "stopped"));
      enable(buttons.terminate, every("running", "stopped", "pending", "stopping"));
    },
  });
  const p = pages(t, async (NextToken) => {
    const r = await ec2("DescribeInstances", { MaxResults: 100, NextToken });
    return [instancesIn(r), r.nextToken];
  });
  main.append(el("h1", {}, "Instances"), el("div", { class: "bar" },
    el("button", { class: "main", onclick: () => launch() }, "Launch an instance"),
    make("connect", "Connect", () => { location.hash = `#/connect/${chosen[0].instanceId}`; }),
    make("start", "Start", () => act("Start instances", "StartInstances", {}, "Start")),
    make("stop", "Stop", () => act("Stop instances", "StopInstances", {}, "Stop")),
    make("reboot", "Reboot", () => act("Reboot instances", "RebootInstances", {}, "Reboot")),
    make("image", "Create an image", () => createImage(chosen[0])),
    make("terminate", "Terminate", () => act("Terminate instances", "TerminateInstances", {}, "Terminate", true, "Terminated instances are gone, with the volumes that are deleted with them."))), t, el("div", { class: "bar" }, p.bar));
  return p.show;
}

export async function instance(main, id) {
  const body = el("div"), heard = changes();
  const console = el("pre", { class: "output", tabindex: "0", role: "region", "aria-label": "Console output" });
  main.append(el("h1", {}, id), body, el("h2", {}, "Console output"), console);
  const show = async () => {
    const i = await find(id);
    heard([[id, tag(i, "Name") || id, i.instanceState.name]]);
    const running = i.instanceState.name === "running";
    replace(body,
      el("div", { class: "bar" },
        el("button", { disabled: !running, onclick: () => { location.hash = `#/connect/${id}`; } }, "Connect"),
        el("button", { disabled: !["running", "stopped"].includes(i.instanceState.name), onclick: () => createImage(i) }, "Create an image")),
      facts([
        ["Name", tag(i, "Name")], ["State", state(i.instanceState.name)], ["Why", i.stateReason?.message], ["Image", link(i.imageId, `#/images/${i.imageId}`)], ["Type", i.instanceType],
        ["Public address", i.ipAddress && [i.ipAddress, " ", copyButton(i.ipAddress), " ", running && external("Open the page it serves", `http://${i.ipAddress}${served(80) === 80 ? "" : `:${served(80)}`}/`)]],
        ["Private address", i.privateIpAddress], ["Zone", i.placement?.availabilityZone], ["Key pair", i.keyName], ["Launched", time(i.launchTime)],
        ["Security groups", list(i.groupSet).map((g) => [link(g.groupName, `#/groups/${g.groupId}`), " "])],
        ["Volumes", list(i.blockDeviceMapping).map((b) => [`${b.deviceName} `, link(b.ebs.volumeId, `#/volumes/${b.ebs.volumeId}`), " "])],
        ["Tags", tagsList(i)],
      ]));
    await write();
  };
  async function write() {
    const out = await ec2("GetConsoleOutput", { InstanceId: id, Latest: true }).catch((e) => {
      if (e.code?.startsWith("InvalidInstanceID")) clearInterval(timer); // the cloud has forgotten it
      return {};
    });
    const raw = out.output ? new TextDecoder().decode(Uint8Array.from(atob(out.output), (c) => c.charCodeAt(0))) : "";
    // What moves the cursor or colours text is for terminals.
    // eslint-disable-next-line no-control-regex
    const text = raw.replace(/\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-_])/g, "").replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/g, "") || "Nothing yet.";
    if (text === console.textContent) return;
    const end = console.scrollTop + console.clientHeight >= console.scrollHeight - 30;
    console.textContent = text;
    if (end) console.scrollTop = console.scrollHeight;
  }
  const timer = setInterval(() => { document.hidden || write(); }, 2000); // what a machine writes changes nothing that the cloud keeps
  return Object.assign(show, { close: () => clearInterval(timer) });
}

const types = ["t3.micro", "t3.small", "t3.medium", "t3.large", "m5.large", "c5.large"];

// imageField is the field for the image: of few, one is chosen; of many, a part of the name is
// typed. The last of many is undefined.
function imageField(images) {
  const option = (i) => ({ value: i.imageId, text: `${i.name} (${i.imageId})` });
  if (images.length === 1 && images[0]) return { name: "ImageId", label: "Image", value: images[0].imageId, required: true };
  if (images.at(-1)) return { name: "ImageId", label: "Image", type: "select", value: images[0]?.imageId, options: images.map(option) };
  return {
    name: "ImageId", label: "Image", required: true, help: "An id. Type a part of a name to choose from the images that have it.", options: images.slice(0, -1).map(option),
    suggest: async (text) => list((await ec2("DescribeImages", { Owners: ["self"], MaxResults: 20, Filters: [{ Name: "name", Values: [`*${text.replace(/[*?\\]/g, "\\$&")}*`] }] })).imagesSet).map(option),
  };
}

export async function launch(image) {
  const [keys, groups, images] = await Promise.all([
    ec2("DescribeKeyPairs").then((r) => list(r.keySet)), ec2("DescribeSecurityGroups").then((r) => list(r.securityGroupInfo)),
    image ? [image] : ec2("DescribeImages", { Owners: ["self"], MaxResults: 100 }).then((r) => [...list(r.imagesSet), ...(r.nextToken ? [undefined] : [])]),
  ]);
  return ask({
    title: "Launch an instance", button: "Launch",
    intro: image ? "" : "To launch an instance of a public image, choose it under Images.",
    fields: [
      { name: "Name", label: "Name" },
      imageField(images),
      { name: "InstanceType", label: "Type", type: "select", value: "t3.micro", options: types.map((value) => ({ value })) },
      { name: "KeyName", label: "Key pair", type: "select", value: "", options: [{ value: "", text: "none" }, ...keys.map((k) => ({ value: k.keyName }))], help: "Without one, connect from this page." },
      { name: "SecurityGroupIds", label: "Security group", type: "select", value: groups[0]?.groupId, options: groups.map((g) => ({ value: g.groupId, text: `${g.groupName}: ${g.groupDescription}` })) },
      { name: "UserData", label: "User data", type: "area", help: "A script or what else cloud-init takes." },
      { name: "Count", label: "How many", type: "number", value: 1, min: "1", max: "20" },
    ],
    blame: { InvalidAMI: "ImageId", InvalidInstanceType: "InstanceType", InvalidKeyPair: "KeyName", InvalidGroup: "SecurityGroupIds", InvalidUserData: "UserData", InstanceLimit: "Count", InsufficientInstanceCapacity: "InstanceType" },
    calls: (v) => [{
      action: "RunInstances",
      params: {
        ImageId: v.ImageId, InstanceType: v.InstanceType, MinCount: v.Count, MaxCount: v.Count, KeyName: v.KeyName, SecurityGroupIds: v.SecurityGroupIds ? [v.SecurityGroupIds] : undefined,
        UserData: v.UserData ? btoa(String.fromCharCode(...new TextEncoder().encode(v.UserData))) : undefined, TagSpecifications: tagsFor("instance", v.Name ? [{ Key: "Name", Value: v.Name }] : []),
      },
      cli: { UserData: v.UserData || undefined },
    }],
    said: ([r]) => `Launched ${list(r.instancesSet).map((i) => i.instanceId).join(", ")}.`,
  }).then((r) => { if (r) location.hash = "#/instances"; });
}

export function createImage(i) {
  return ask({
    title: "Create an image", intro: `Of ${tag(i, "Name") || i.instanceId}.`, button: "Create the image",
    fields: [
      { name: "Name", label: "Name", required: true, help: "From 3 to 128 letters, digits and ( ) [ ] . / - ' @ _" },
      { name: "Description", label: "Description" },
      { name: "NoReboot", label: "No reboot", type: "check", help: "The instance goes on running; what it has not written to its disk is not in the image." },
      { name: "Tags", label: "Tags", type: "area", help: "KEY=VALUE, one on each line" },
    ],
    blame: { InvalidAMIName: "Name", "InvalidParameterValue": "Name" },
    calls: (v) => [{ action: "CreateImage", params: { InstanceId: i.instanceId, Name: v.Name, Description: v.Description, NoReboot: v.NoReboot, TagSpecifications: tagsFor("image", tagsOf(v.Tags)) } }],
    said: ([r]) => `${r.imageId} is being made.`,
  }).then((r) => { if (r) location.hash = `#/images/${r[0].imageId}`; });
}

// loginUser is whom an instance lets in: by the name of its image, as people know it.
export async function loginUser(i) {
  const image = list((await ec2("DescribeImages", { ImageIds: [i.imageId], IncludeDeprecated: true }).catch(() => ({}))).imagesSet)[0];
  const name = image?.name ?? "";
  if (/ubuntu/i.test(name)) return "ubuntu";
  if (/^(al2023|amzn|RHEL|AlmaLinux)/i.test(name)) return "ec2-user";
  if (/^rocky/i.test(name)) return "rocky";
  return /^fedora/i.test(name) ? "fedora" : "admin";
}

export const find = async (id) => instancesIn(await ec2("DescribeInstances", { InstanceIds: [id] }))[0];
