package builder

import "strings"

// SecretData are the names of the values of build.* that must not be shown.
func SecretData() []string { return []string{"Password", "WinRMPassword", "SSHPrivateKey"} }

// PublicData returns what of data, values of build.*, can be shown and written to
// files: no secrets, and none of the texts that stand for what a builder does not
// have.
func PublicData(data map[string]any) map[string]any {
	if data == nil {
		return nil
	}
	public := map[string]any{}
	for name, value := range data {
		text, _ := value.(string)
		placeholder := text == "<unknown>" || strings.HasPrefix(text, "ERR_") && strings.HasSuffix(text, "_NOT_IMPLEMENTED_BY_BUILDER")
		if !placeholder {
			public[name] = value
		}
	}
	for _, name := range SecretData() {
		delete(public, name)
	}
	return public
}
