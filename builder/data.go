package builder

import (
	"encoding/json"
	"maps"
	"strconv"

	"bake/communicator"
)

// Data are values of build.* by name.
type Data map[string]Value

// Value is one value of build.*. The zero value is an empty text.
type Value struct {
	Text   string
	Number bool // Text is a whole number in decimal
	Secret bool // Text must not be shown
	Absent bool // the builder has no such value, and Text says so
}

// Text is a text as a value.
func Text(s string) Value { return Value{Text: s} }

// Secret is a text that must not be shown.
func Secret(s string) Value { return Value{Text: s, Secret: true} }

// Number is a number as a value.
func Number(n int) Value { return Value{Text: strconv.Itoa(n), Number: true} }

// Absent stands for the value of that name where the builder has none.
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

// Plain is the value as {{ }} and scripts take it, secret or not: a string or an int.
func (v Value) Plain() any {
	if n, err := strconv.Atoi(v.Text); v.Number && err == nil {
		return n
	}
	return v.Text
}

// String is the value for people. It shows no secrets.
func (v Value) String() string {
	if v.Secret {
		return "<sensitive>"
	}
	return v.Text
}

// MarshalJSON writes a number or a string, which shows no secrets.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.Secret {
		return json.Marshal(v.String())
	}
	return json.Marshal(v.Plain())
}

// UnmarshalJSON reads what MarshalJSON has written.
func (v *Value) UnmarshalJSON(b []byte) error {
	if n, err := strconv.Atoi(string(b)); err == nil {
		*v = Number(n)
		return nil
	}
	*v = Value{}
	return json.Unmarshal(b, &v.Text)
}

// Plain are the values as {{ }} and scripts take them, secrets among them.
func (d Data) Plain() map[string]any {
	plain := make(map[string]any, len(d))
	for name, v := range d {
		plain[name] = v.Plain()
	}
	return plain
}

// Public are the values that can be shown and written to files: neither secrets nor
// what stands for what a builder does not have.
func (d Data) Public() Data {
	public := maps.Clone(d)
	maps.DeleteFunc(public, func(_ string, v Value) bool { return v.Secret || v.Absent })
	return public
}

// Secrets are the texts that must not be shown.
func (d Data) Secrets() (texts []string) {
	for _, v := range d {
		if v.Secret && !v.Absent && v.Text != "" {
			texts = append(texts, v.Text)
		}
	}
	return texts
}

// Facts are what a builder knows of its machine that the connection does not.
type Facts struct {
	RunID        string
	ID           string // of the machine; empty if the builder gives it none
	Communicator string // its type
	PublicKey    string // of the temporary key pair, if there is one
	PrivateKey   string // likewise, in PEM
}

// MachineData are the values that all builders with a machine have in common. What
// describes the connection is absent with a communicator that has none.
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
