package goss

import "strings"

// resourceType is a kind of resource that a file can have requirements for.
type resourceType struct {
	kind       string // section of the file
	name       string // in reports
	key        string // attribute that replaces the name of the thing to check
	nameIsID   bool   // reports show only the name, regardless of key
	gate       bool   // the first attribute decides whether the others are judged
	retries    bool   // it can be checked again while it does not meet the requirements
	attributes []attribute
	options    []option
}

// attribute is an attribute that can have requirements. Attributes are in the order of
// reports.
type attribute struct {
	name     string // in the file
	property string // in reports; "" is the name
	asked    string // in questions; "" is the name
	required bool
	text     bool // a text, whose lists are patterns
	number   bool // a string is converted to a number, as in old files
	boolean  bool
}

func (a *attribute) shown() string {
	if a.property != "" {
		return a.property
	}
	return a.name
}

func (a *attribute) question() string {
	if a.asked != "" {
		return a.asked
	}
	return a.name
}

// option is a parameter of the query for a resource.
type option struct {
	name    string
	kind    optionKind
	initial string // when it is absent, or 0
}

type optionKind int

const (
	textOption optionKind = iota
	boolOption
	numberOption
	listOption
)

// resourceTypes are all resource types, except gossfile.
func resourceTypes() []*resourceType {
	return []*resourceType{
		{kind: "addr", name: "Addr", key: "address", attributes: []attribute{
			{name: "reachable", required: true, boolean: true},
		}, options: []option{{"timeout", numberOption, "500"}, {"local-address", textOption, ""}}},
		{kind: "command", name: "Command", key: "exec", nameIsID: true, retries: true, attributes: []attribute{
			{name: "exit-status", required: true, number: true}, {name: "stdout", text: true}, {name: "stderr", text: true},
		}, options: []option{{"timeout", numberOption, "10000"}}},
		{kind: "dns", name: "DNS", key: "resolve", gate: true, retries: true, attributes: []attribute{
			{name: "resolvable", required: true, boolean: true}, {name: "addrs"},
		}, options: []option{{"timeout", numberOption, "500"}, {"server", textOption, ""}}},
		{kind: "file", name: "File", key: "path", gate: true, attributes: []attribute{
			{name: "exists", required: true, boolean: true},
			{name: "mode"}, {name: "owner"}, {name: "uid"}, {name: "group"}, {name: "gid"},
			{name: "linked-to", property: "linkedto"}, {name: "filetype"},
			{name: "contains", asked: "contents", text: true}, {name: "contents", text: true},
			{name: "size"}, {name: "md5"}, {name: "sha256"}, {name: "sha512"},
		}},
		{kind: "group", name: "Group", key: "groupname", gate: true, attributes: []attribute{
			{name: "exists", required: true, boolean: true}, {name: "gid", number: true},
		}},
		{kind: "http", name: "HTTP", key: "url", gate: true, attributes: []attribute{
			{name: "status", required: true}, {name: "headers", property: "Headers", text: true}, {name: "body", property: "Body", text: true},
		}, options: []option{
			{"method", textOption, "GET"}, {"allow-insecure", boolOption, ""}, {"no-follow-redirects", boolOption, ""},
			{"timeout", numberOption, "5000"}, {"request-headers", listOption, ""}, {"request-body", textOption, ""},
			{"username", textOption, ""}, {"password", textOption, ""}, {"ca-file", textOption, ""}, {"cert-file", textOption, ""},
			{"key-file", textOption, ""}, {"proxy", textOption, ""},
		}},
		{kind: "interface", name: "Interface", key: "name", gate: true, attributes: []attribute{
			{name: "exists", required: true, boolean: true}, {name: "addrs"}, {name: "mtu"},
		}},
		{kind: "kernel-param", name: "KernelParam", key: "name", attributes: []attribute{{name: "value", required: true}}},
		{kind: "matching", name: "Matching", attributes: []attribute{{name: "matches", required: true}},
			options: []option{{"as-reader", boolOption, ""}}},
		{kind: "mount", name: "Mount", key: "mountpoint", gate: true, attributes: []attribute{
			{name: "exists", required: true, boolean: true}, {name: "opts"}, {name: "vfs-opts"}, {name: "source"}, {name: "filesystem"}, {name: "usage"},
		}, options: []option{{"timeout", numberOption, "1000"}}},
		{kind: "package", name: "Package", key: "name", gate: true, retries: true, attributes: []attribute{
			{name: "installed", required: true, boolean: true}, {name: "versions", property: "version"},
		}},
		{kind: "port", name: "Port", key: "port", gate: true, attributes: []attribute{
			{name: "listening", required: true, boolean: true}, {name: "ip"},
		}},
		{kind: "process", name: "Process", key: "comm", attributes: []attribute{{name: "running", required: true, boolean: true}}},
		{kind: "service", name: "Service", key: "name", attributes: []attribute{
			{name: "enabled", boolean: true}, {name: "running", boolean: true}, {name: "runlevels"},
		}},
		{kind: "user", name: "User", key: "username", gate: true, attributes: []attribute{
			{name: "exists", required: true, boolean: true}, {name: "uid", number: true}, {name: "gid", number: true},
			{name: "home"}, {name: "groups"}, {name: "shell"},
		}},
	}
}

func typeOf(types []*resourceType, kind string) *resourceType {
	for _, t := range types {
		if t.kind == kind {
			return t
		}
	}
	return nil
}

// names returns the names of everything that a resource of the type may contain.
func (t *resourceType) names() []string {
	names := []string{"title", "meta", "skip"}
	if t.key != "" {
		names = append(names, t.key)
	}
	for _, a := range t.attributes {
		names = append(names, a.name)
	}
	for _, o := range t.options {
		names = append(names, o.name)
	}
	if t.retries {
		names = append(names, "retry_count", "retry_delay")
	}
	switch t.kind {
	case "dns":
		names = append(names, "resolveable")
	case "matching":
		names = append(names, "content")
	}
	return names
}

// demands lists the attributes, for messages.
func (t *resourceType) demands() string {
	names := make([]string, len(t.attributes))
	for i, a := range t.attributes {
		names[i] = a.name
	}
	return strings.Join(names, ", ")
}
