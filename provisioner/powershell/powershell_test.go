package powershell_test

import (
	"testing"

	"bake/provisioner/powershell"
	"bake/provisioner/provisionertest"
)

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		``: "No script", `script = "/no/such/file"`: "Script not found",
		"inline = [\"a\"]\nenv_var_format = \"x\"":          "Unusable format",
		"inline = [\"a\"]\nelevated_env_var_format = \"x\"": "Unusable format",
		"inline = [\"a\"]\nstart_retry_timeout = \"-1s\"":   "Negative duration",
		"inline = [\"a\"]\npause_after = \"-1s\"":           "Negative duration",
		"inline = [\"a\"]\nexecution_policy = \"any\"":      `"any" is not one of`,
		"inline = [\"a\"]\ndebug_mode = 3":                  "trace levels",
		"inline = [\"a\"]\nelevated_password = \"p\"":       "Missing elevated_user",
	} {
		provisionertest.Invalid(t, powershell.Component(), body, "", want)
	}
	if _, err := powershell.Component().Docs(); err != nil {
		t.Error(err)
	}
}
