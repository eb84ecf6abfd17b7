package shell

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"time"

	"bake/config/schema"
	"bake/internal/script"
)

//go:embed options.go
var source string

// Options are the arguments of a shell provisioner.
type Options struct {
	script.Options

	// The command line that runs the script on the machine. `{{.Path}}` is where
	// the script was uploaded to, `{{.Vars}}` are the assignments of its
	// environment, `{{.EnvVarFile}}` is the path of the file that holds them when
	// `use_env_var_file` is set; the values of `build.*` have their names.
	// `chmod +x {{.Path}}; {{.Vars}} {{.Path}}` when not set, or, with
	// `use_env_var_file`, `chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}`.
	ExecuteCommand string `hcl:"execute_command,optional,late"`

	// Put the environment into a file that only the user can read, instead of
	// into the command line, which every user of the machine can.
	UseEnvVarFile bool `hcl:"use_env_var_file,optional"`

	// How one variable is assigned: the first %s is its name and the second its
	// value, in which single quotes are quoted. `%s='%s' ` when not set, or, with
	// `use_env_var_file`, `export %s='%s'` and a line break.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// The interpreter of an inline script. When this is not set and the first
	// line starts with `#!`, that line counts.
	InlineShebang string `hcl:"inline_shebang,optional"`

	// Upload the script as it is. Otherwise line ends become those of Unix, and a
	// missing one at the end is added.
	Binary bool `hcl:"binary,optional"`

	// The directory on the machine that scripts are uploaded to. It has to exist.
	RemoteFolder string `hcl:"remote_folder,optional"`

	// The script's name in that directory. `script_` and a random number when not set.
	RemoteFile string `hcl:"remote_file,optional"`

	// The whole path of the script on the machine, instead of folder and file.
	RemotePath string `hcl:"remote_path,optional"`

	// Leave the uploaded files on the machine.
	SkipClean bool `hcl:"skip_clean,optional"`

	// The script may end the connection, because it reboots the machine.
	ExpectDisconnect bool `hcl:"expect_disconnect,optional"`

	// How long to go on trying to start a script while the connection to the
	// machine fails.
	StartRetryTimeout time.Duration `hcl:"start_retry_timeout,optional"`

	// How long to wait after the last script.
	PauseAfter time.Duration `hcl:"pause_after,optional"`
}

func defaults() Options {
	return Options{InlineShebang: "/bin/sh -e", RemoteFolder: "/tmp", StartRetryTimeout: 5 * time.Minute}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	for _, p := range o.Problems(c.Known) {
		c.Errorf(p.Field, p.Summary, "%s", p.Detail)
	}
	if o.EnvVarFormat != "" {
		if err := script.CheckFormat(o.EnvVarFormat); err != nil {
			c.Errorf(&o.EnvVarFormat, "Unusable format", "%s.", err)
		}
	}
	for _, d := range []*time.Duration{&o.StartRetryTimeout, &o.PauseAfter} {
		if *d < 0 {
			c.Errorf(d, "Negative duration", "%s cannot be negative.", c.Name(d))
		}
	}
}

func (o *Options) executeCommand() string {
	switch {
	case o.ExecuteCommand != "":
		return o.ExecuteCommand
	case o.UseEnvVarFile:
		return "chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}"
	}
	return "chmod +x {{.Path}}; {{.Vars}} {{.Path}}"
}

func (o *Options) envVarFormat() string {
	switch {
	case o.EnvVarFormat != "":
		return o.EnvVarFormat
	case o.UseEnvVarFile:
		return "export %s='%s'\n"
	}
	return "%s='%s' "
}

func (o *Options) remotePath() string {
	switch {
	case o.RemotePath != "":
		return o.RemotePath
	case o.RemoteFile != "":
		return o.RemoteFolder + "/" + o.RemoteFile
	}
	return fmt.Sprintf("%s/script_%d.sh", o.RemoteFolder, rand.IntN(9999))
}
