// Key pairs, security groups and parameters.
import { el, link, time, facts, table, copyButton, enable, replace } from "./dom.js";
import { ec2, ssm, list } from "./api.js";
import { ask } from "./dialogs.js";
import { tagsList } from "./shared.js";

// privateKeys are those of the key pairs that this page has made, until it is closed.
export const privateKeys = new Map();

export async function keys(main) {
  let chosen = [];
  const remove = el("button", {
    class: "danger", disabled: true,
    onclick: () => ask({
      title: "Delete key pairs", intro: chosen.map((k) => k.keyName).join(", "), button: "Delete", danger: true,
      calls: () => chosen.map((k) => ({ action: "DeleteKeyPair", params: { KeyName: k.keyName } })), said: "Deleted.",
    }),
  }, "Delete");
  const t = table({
    label: "Key pairs", id: (k) => k.keyPairId, columns: [["Name", (k) => k.keyName], ["Id", (k) => k.keyPairId], ["Type", (k) => k.keyType], ["Fingerprint", (k) => k.keyFingerprint], ["Created", (k) => time(k.createTime)]],
    select: (rows) => { chosen = rows; enable(remove, rows.length > 0); },
  });
  async function create() {
    const done = await ask({
      title: "Create a key pair", intro: "The private key is downloaded once. The cloud does not keep it, and this page only until it is closed.", button: "Create",
      fields: [{ name: "KeyName", label: "Name", required: true }, { name: "KeyType", label: "Type", type: "select", value: "ed25519", options: [{ value: "ed25519" }, { value: "rsa" }] }],
      blame: { InvalidKeyPair: "KeyName", InvalidParameterValue: "KeyName" }, calls: (v) => [{ action: "CreateKeyPair", params: { KeyName: v.KeyName, KeyType: v.KeyType } }],
    });
    if (!done) return;
    privateKeys.set(done[0].keyName, done[0].keyMaterial);
    const href = URL.createObjectURL(new Blob([done[0].keyMaterial], { type: "application/x-pem-file" }));
    const a = el("a", { href, download: `${done[0].keyName}.pem` });
    a.click();
    setTimeout(() => URL.revokeObjectURL(href), 10000);
  }
  main.append(el("h1", {}, "Key pairs"), el("div", { class: "bar" }, el("button", { class: "main", onclick: create }, "Create a key pair"),
    el("button", {
      onclick: () => ask({
        title: "Import a key pair", button: "Import", blame: { "InvalidKey.Format": "PublicKeyMaterial", InvalidKeyPair: "KeyName" },
        fields: [{ name: "KeyName", label: "Name", required: true }, { name: "PublicKeyMaterial", label: "Public key", type: "area", help: "As in a file *.pub" }],
        calls: (v) => [{ action: "ImportKeyPair", params: { KeyName: v.KeyName, PublicKeyMaterial: btoa(v.PublicKeyMaterial.trim()) }, cli: { PublicKeyMaterial: btoa(v.PublicKeyMaterial.trim()) } }], said: "Imported.",
      }),
    }, "Import"), remove), t);
  return async () => t.show(list((await ec2("DescribeKeyPairs")).keySet));
}

export async function groups(main) {
  let chosen = [];
  const remove = el("button", {
    class: "danger", disabled: true,
    onclick: () => ask({
      title: "Delete security groups", intro: chosen.map((g) => g.groupName).join(", "), button: "Delete", danger: true,
      calls: () => chosen.map((g) => ({ action: "DeleteSecurityGroup", params: { GroupId: g.groupId } })), said: "Deleted.",
    }),
  }, "Delete");
  const t = table({
    label: "Security groups", id: (g) => g.groupId, columns: [["Name", (g) => g.groupName], ["Group", (g) => link(g.groupId, `#/groups/${g.groupId}`)], ["Network", (g) => g.vpcId], ["Description", (g) => g.groupDescription]],
    select: (rows) => { chosen = rows; enable(remove, rows.length > 0); },
  });
  main.append(el("h1", {}, "Security groups"), el("div", { class: "bar" }, el("button", {
    class: "main",
    onclick: () => ask({
      title: "Create a security group", button: "Create", fields: [{ name: "GroupName", label: "Name", required: true }, { name: "Description", label: "Description", required: true }],
      blame: { "InvalidGroup.Duplicate": "GroupName" }, calls: (v) => [{ action: "CreateSecurityGroup", params: { GroupName: v.GroupName, Description: v.Description } }],
      said: ([r]) => `${r.groupId} is there. Add rules to let clients in.`,
    }).then((r) => { if (r) location.hash = `#/groups/${r[0].groupId}`; }),
  }, "Create a security group"), remove), t);
  return async () => t.show(list((await ec2("DescribeSecurityGroups")).securityGroupInfo));
}

export async function group(main, id) {
  const body = el("div");
  let chosen = [];
  const remove = el("button", {
    class: "danger", disabled: true,
    onclick: () => ask({
      title: "Remove rules", button: "Remove", danger: true,
      calls: () => [false, true].map((egress) => [egress, chosen.filter((r) => (r.isEgress === "true") === egress)]).filter(([, rules]) => rules.length)
        .map(([egress, rules]) => ({ action: egress ? "RevokeSecurityGroupEgress" : "RevokeSecurityGroupIngress", params: { GroupId: id, SecurityGroupRuleIds: rules.map((r) => r.securityGroupRuleId) } })),
      said: "Removed.",
    }),
  }, "Remove");
  const range = (r) => (r.ipProtocol === "-1" ? "all" : r.fromPort === r.toPort ? r.fromPort : `${r.fromPort}-${r.toPort}`);
  const t = table({
    label: "Rules", id: (r) => r.securityGroupRuleId, none: "There are no rules: nothing gets in.",
    columns: [["Direction", (r) => (r.isEgress === "true" ? "out" : "in")], ["Protocol", (r) => (r.ipProtocol === "-1" ? "all" : r.ipProtocol)], ["Ports", range], ["Peer", (r) => r.cidrIpv4 ?? r.cidrIpv6 ?? r.referencedGroupInfo?.groupId ?? r.prefixListId], ["Description", (r) => r.description]],
    select: (rows) => { chosen = rows; enable(remove, rows.length > 0); },
  });
  main.append(el("h1", {}, id), body, el("h2", {}, "Rules"), el("div", { class: "bar" }, el("button", {
    class: "main",
    onclick: () => ask({
      title: "Add a rule for what comes in", button: "Add",
      fields: [
        { name: "IpProtocol", label: "Protocol", type: "select", value: "tcp", options: [{ value: "tcp" }, { value: "udp" }, { value: "icmp" }] }, { name: "FromPort", label: "From port", type: "number", value: 80, min: "-1", max: "65535" },
        { name: "ToPort", label: "To port", type: "number", value: 80, min: "-1", max: "65535" }, { name: "CidrIp", label: "From addresses", value: "0.0.0.0/0", required: true, help: "0.0.0.0/0 is everyone who reaches this host." }, { name: "Description", label: "Description" },
      ],
      blame: { "InvalidPermission.Duplicate": "CidrIp", InvalidParameterValue: "CidrIp" },
      calls: (v) => [{ action: "AuthorizeSecurityGroupIngress", params: { GroupId: id, IpPermissions: [{ IpProtocol: v.IpProtocol, FromPort: v.FromPort, ToPort: v.ToPort, IpRanges: [{ CidrIp: v.CidrIp, Description: v.Description || undefined }] }] } }],
      said: "Added.",
    }),
  }, "Add a rule"), remove), t);
  return async () => {
    const g = list((await ec2("DescribeSecurityGroups", { GroupIds: [id] })).securityGroupInfo)[0];
    replace(body, facts([["Name", g.groupName], ["Description", g.groupDescription], ["Network", g.vpcId], ["Tags", tagsList(g)]]));
    t.show(list((await ec2("DescribeSecurityGroupRules", { Filters: [{ Name: "group-id", Values: [id] }] })).securityGroupRuleSet));
  };
}

export async function parameters(main) {
  const t = table({ label: "Parameters", id: (p) => p.Name, columns: [["Name", (p) => link(p.Name, `#/parameters/${encodeURIComponent(p.Name)}`)], ["Type", (p) => p.Type], ["Version", (p) => String(p.Version)], ["Changed", (p) => p.LastModifiedDate && time(new Date(p.LastModifiedDate * 1000).toISOString())]] });
  main.append(el("h1", {}, "Parameters"), t);
  return async () => {
    let rows = [], NextToken;
    do {
      const r = await ssm("DescribeParameters", { MaxResults: 50, NextToken });
      rows = rows.concat(r.Parameters ?? []);
      NextToken = r.NextToken;
    } while (NextToken && rows.length < 1000);
    t.show(rows);
  };
}

export async function parameter(main, name) {
  const body = el("div");
  main.append(el("h1", {}, name), body);
  return async () => {
    const p = (await ssm("GetParameter", { Name: name })).Parameter;
    const image = /^ami-[0-9a-f]+$/.test(p.Value);
    replace(body, facts([["Value", [image ? link(p.Value, `#/images/${p.Value}`) : p.Value, " ", copyButton(p.Value)]], ["Type", p.Type], ["Kind", p.DataType], ["Version", String(p.Version)]]));
  };
}
