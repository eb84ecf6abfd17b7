package shell

import (
	"fmt"
	"math/rand/v2"
	"time"

	"bake/config/schema"
	"bake/internal/script"
)

// Options are the arguments of a shell provisioner.
type Options struct {
	script.Options

	// Command line that runs the script on the machine. `{{.Path}}` is the path of the
	// script, `{{.Vars}}` its environment as assignments, and `{{.EnvVarFile}}` the path of
	// the file with the environment if `use_env_var_file` is set; the values of `build.*`
	// are available by name. Not set: `chmod +x {{.Path}}; {{.Vars}} {{.Path}}`, or with
	// `use_env_var_file`: `chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}`. To run as
	// root: `sudo sh -c '{{.Vars}} {{.Path}}'`.
	ExecuteCommand string `hcl:"execute_command,optional,deferred"`

	// Pass the environment in a file that only the login user can read, instead of on the
	// command line, which every user of the machine can see.
	UseEnvVarFile bool `hcl:"use_env_var_file,optional"`

	// Format of one assignment: the first %s is the name, the second the value, with single
	// quotes escaped. Not set: `%s='%s' `, or with `use_env_var_file` `export %s='%s'` and a
	// newline.
	EnvVarFormat string `hcl:"env_var_format,optional"`

	// Interpreter for inline scripts. Not set: the first line of the script if it starts
	// with `#!`.
	InlineShebang string `hcl:"inline_shebang,optional"`

	// Upload the script unchanged. Otherwise Windows line endings are converted to Unix
	// ones, and a missing final newline is added.
	Binary bool `hcl:"binary,optional"`

	// Directory on the machine to upload scripts to. It must exist, and must not be mounted
	// noexec.
	RemoteFolder string `hcl:"remote_folder,optional"`

	// File name of the script in `remote_folder`. Not set: `script_` and a random number.
	RemoteFile string `hcl:"remote_file,optional"`

	// Full path of the script on the machine, instead of `remote_folder` and `remote_file`.
	RemotePath string `hcl:"remote_path,optional"`

	// Do not remove the uploaded files from the machine. They end up in the image, including
	// any secrets in them.
	SkipClean bool `hcl:"skip_clean,optional"`

	// Accept that the script loses the connection, for example because it reboots the
	// machine. Otherwise that is an error. What follows waits until the machine is up again.
	ExpectDisconnect bool `hcl:"expect_disconnect,optional"`

	// How long to keep trying to upload and start a script while the connection fails.
	StartRetryTimeout time.Duration `hcl:"start_retry_timeout,optional"`

	// How long to wait after the last script, for example for a reboot.
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
