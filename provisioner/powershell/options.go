// Package powershell is the provisioner that runs PowerShell scripts on the machine.
package powershell

import (
	"cmp"
	"strings"
	"time"

	"bake/config/schema"
	"bake/internal/script"
)

// Policy is an execution policy of PowerShell, in lower case, or none.
type Policy string

// noPolicy means that the machine's login shell is PowerShell.
const noPolicy Policy = "none"

// Choices implements [schema.Choice].
func (Policy) Choices() []string {
	return []string{"bypass", "allsigned", "default", "remotesigned", "restricted", "undefined", "unrestricted", string(noPolicy)}
}

// UnmarshalText implements [encoding.TextUnmarshaler]. PowerShell does not distinguish
// upper and lower case.
func (p *Policy) UnmarshalText(b []byte) error {
	return schema.ParseChoice(p, []byte(strings.ToLower(string(b))), p.Choices())
}

// Options are the arguments of a powershell provisioner.
type Options struct {
	script.Options

	// Has no effect: scripts are always uploaded unchanged, since a changed line ending would
	// break their signatures.
	Binary bool `hcl:"binary,optional"`

	// Command line that runs the script on the machine. `{{.Path}}` is the path of the script,
	// `{{.Vars}}` the path of a script that sets the environment variables; the values of
	// `build.*` are available by name. Not set: PowerShell runs both with the policy in
	// `execution_policy`. If the login shell is not cmd.exe, quote the `$` of PowerShell so
	// that this shell does not expand it; the default does so.
	ExecuteCommand string `hcl:"execute_command,optional,deferred"`

	// Format of one assignment: the first %s is the name, the second the value, in which
	// PowerShell's special characters are escaped. Not set: `$env:%s="%s"; `.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// PowerShell execution policy for the script. `none`: the machine's login shell is
	// PowerShell, and runs the script itself.
	ExecutionPolicy Policy `hcl:"execution_policy,optional"`

	// Run PowerShell 7 (`pwsh`) instead of Windows PowerShell. Needed on machines that do not
	// run Windows.
	UsePwsh bool `hcl:"use_pwsh,optional"`

	// Trace the script: 1 shows each line as it runs, 2 also assignments and calls.
	DebugMode int `hcl:"debug_mode,optional"`

	// Run the script as this user with full administrator privileges, in a scheduled task.
	// This allows operations that WinRM does not, such as installing updates. Windows
	// only.
	ElevatedUser string `hcl:"elevated_user,optional,deferred"`

	// Password of `elevated_user`, such as `build.Password`. Not set: the user is a service
	// account, such as SYSTEM.
	ElevatedPassword string `hcl:"elevated_password,optional,deferred,secret"`

	// Command line that the scheduled task of `elevated_user` runs in cmd.exe, like
	// `execute_command`.
	ElevatedExecuteCommand string `hcl:"elevated_execute_command,optional,deferred"`

	// `env_var_format` for scripts that run as `elevated_user`.
	ElevatedEnvVarFormat string `hcl:"elevated_env_var_format,optional"`

	// Path of the script on the machine. Not set: `c:/Windows/Temp/script-` and a UUID, or in
	// `/tmp` on machines that do not run Windows.
	RemotePath string `hcl:"remote_path,optional"`

	// Path of the script that sets the environment variables. Not set:
	// `c:/Windows/Temp/packer-ps-env-vars-` and a UUID, or in `/tmp`.
	RemoteEnvVarPath string `hcl:"remote_env_var_path,optional"`

	// Do not remove the uploaded files from the machine. They end up in the image, including
	// any secrets in them.
	SkipClean bool `hcl:"skip_clean,optional"`

	// How long to keep trying to upload and start a script while the connection fails.
	StartRetryTimeout time.Duration `hcl:"start_retry_timeout,optional"`

	// How long to wait after the last script, for example for a reboot.
	PauseAfter time.Duration `hcl:"pause_after,optional"`
}

func defaults() Options {
	return Options{ExecutionPolicy: "bypass", StartRetryTimeout: 5 * time.Minute}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, p := range o.Problems(c.Known) {
		c.Errorf(p.Field, p.Summary, "%s", p.Detail)
	}
	for _, format := range []*string{&o.EnvVarFormat, &o.ElevatedEnvVarFormat} {
		if *format == "" {
			continue
		}
		if err := script.CheckFormat(*format); err != nil {
			c.Errorf(format, "Unusable format", "%s.", err)
		}
	}
	for _, d := range []*time.Duration{&o.StartRetryTimeout, &o.PauseAfter} {
		if *d < 0 {
			c.Errorf(d, "Negative duration", "%s cannot be negative.", c.Name(d))
		}
	}
	if o.DebugMode < 0 || o.DebugMode > 2 {
		c.Errorf(&o.DebugMode, "Invalid trace level", "debug_mode is %d; Set-PSDebug knows the trace levels 0, 1 and 2.", o.DebugMode)
	}
	if o.ElevatedUser != "" || !c.Known(&o.ElevatedUser) {
		return
	}
	if o.ElevatedPassword != "" {
		c.Errorf(&o.ElevatedPassword, "Missing elevated_user", "elevated_password needs elevated_user, the user whose password it is.")
	}
	for _, option := range []*string{&o.ElevatedExecuteCommand, &o.ElevatedEnvVarFormat} {
		if *option != "" {
			c.Warnf(option, "Argument without effect", "%s applies only to scripts that run as elevated_user, which is not set.", c.Name(option))
		}
	}
}

const assignment = `$env:%s="%s"; `

func (o *Options) envVarFormat() string {
	if o.ElevatedUser != "" {
		return cmp.Or(o.ElevatedEnvVarFormat, assignment)
	}
	return cmp.Or(o.EnvVarFormat, assignment)
}
