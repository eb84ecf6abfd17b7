package builder

import (
	"encoding/json"
	"maps"
	"strconv"

	"bake/communicator"
)

// Data holds the values of build.* by name.
type Data map[string]Value

// Value is one value of build.*. The zero value is an empty text.
type Value struct {
	Text   string
	Number bool // Text is a whole number in decimal
	Secret bool // Text must not be shown
	Absent bool // the builder has no such value; Text is a placeholder
}

// Text returns a value that is a string.
func Text(s string) Value { return Value{Text: s} }

// Secret returns a string value that must not be shown.
func Secret(s string) Value { return Value{Text: s, Secret: true} }

// Number returns a value that is a number.
func Number(n int) Value { return Value{Text: strconv.Itoa(n), Number: true} }

// Absent returns the placeholder for the named value of a builder that does not provide it.
func Absent(name string) Value {
	text := "<unknown>"
	switch name {
	case "ID":
		text = "ERR_ID_NOT_IMPLEMENTED_BY_BUILDER"
	case "PackerHTTPIP":
		text = "ERR_HTTP_IP_NOT_IMPLEMENTED_BY_BUILDER"
	case "PackerHTTPPort":
		text = "ERR_HTTP_PORT_NOT_IMPLEMENTED_BY_BUILDER"
	case "PackerHTTPAddr":
		text = "ERR_HTTP_ADDR_NOT_IMPLEMENTED_BY_BUILDER"
	}
	return Value{Text: text, Absent: true}
}

// Plain returns the value for templates and scripts, even if it is secret: a string or an int.
func (v Value) Plain() any {
	if n, err := strconv.Atoi(v.Text); v.Number && err == nil {
		return n
	}
	return v.Text
}

// String returns the value for display. Secrets are masked.
func (v Value) String() string {
	if v.Secret {
		return "<sensitive>"
	}
	return v.Text
}

// MarshalJSON writes a number or a string. Secrets are masked.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.Secret {
		return json.Marshal(v.String())
	}
	return json.Marshal(v.Plain())
}

// UnmarshalJSON reads the output of MarshalJSON.
func (v *Value) UnmarshalJSON(b []byte) error {
	if n, err := strconv.Atoi(string(b)); err == nil {
		*v = Number(n)
		return nil
	}
	*v = Value{}
	return json.Unmarshal(b, &v.Text)
}

// Plain returns all values for templates and scripts, including secrets.
func (d Data) Plain() map[string]any {
	plain := make(map[string]any, len(d))
	for name, v := range d {
		plain[name] = v.Plain()
	}
	return plain
}

// Public returns the values that can be shown and written to files: without secrets and
// without placeholders.
func (d Data) Public() Data {
	public := maps.Clone(d)
	maps.DeleteFunc(public, func(_ string, v Value) bool { return v.Secret || v.Absent })
	return public
}

// Secrets returns the texts that must not be shown.
func (d Data) Secrets() (texts []string) {
	for _, v := range d {
		if v.Secret && !v.Absent && v.Text != "" {
			texts = append(texts, v.Text)
		}
	}
	return texts
}

// Facts are what a builder knows about its machine in addition to the connection.
type Facts struct {
	RunID        string
	ID           string // of the machine; empty if it has none
	Communicator string // its type
	PublicKey    string // of the temporary key pair, if there is one
	PrivateKey   string // likewise, in PEM
}

// MachineData returns the values that all builders with a machine provide. Those that
// describe the connection are absent if conn is not a [communicator.Describer].
func MachineData(conn communicator.Communicator, f Facts) Data {
	d := Data{"PackerRunUUID": Text(f.RunID), "WinRMPassword": Secret("")}
	for _, name := range []string{
		"ID", "Host", "Port", "User", "Password", "ConnType", "SSHPublicKey", "SSHPrivateKey", "PackerHTTPIP", "PackerHTTPPort", "PackerHTTPAddr",
	} {
		d[name] = Absent(name)
	}
	if f.ID != "" {
		d["ID"] = Text(f.ID)
	}
	if c, ok := conn.(communicator.Describer); ok {
		to := c.Describe()
		d["Host"], d["Port"], d["User"], d["Password"] = Text(to.Host), Number(to.Port), Text(to.User), Secret(to.Password)
		d["ConnType"], d["SSHPublicKey"], d["SSHPrivateKey"] = Text(f.Communicator), Text(f.PublicKey), Secret(f.PrivateKey)
		if to.WinRM {
			d["WinRMPassword"] = d["Password"]
		}
	}
	return d
}
