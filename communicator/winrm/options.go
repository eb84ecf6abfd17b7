package winrm

import (
	"cmp"
	"time"

	"bake/config/schema"
)

// Settings say how a Windows machine is reached where the communicator is
// `winrm`. Builders embed them beside those of SSH.
type Settings struct {
	// User to log in as, such as Administrator. Required with the `winrm` communicator.
	WinRMUsername string `hcl:"winrm_username,optional"`

	// Password to log in with. Not set: the amazon builders get the password that Windows
	// generated from EC2.
	WinRMPassword string `hcl:"winrm_password,optional,secret"`

	// Host name or address to connect to. The builder sets it for machines that it launches.
	WinRMHost string `hcl:"winrm_host,optional"`

	// TCP port of WinRM. Not set: 5985, or 5986 with `winrm_use_ssl`.
	WinRMPort int `hcl:"winrm_port,optional"`

	// How long to try to connect, at first and after each restart.
	WinRMTimeout time.Duration `hcl:"winrm_timeout,optional"`

	// Connect with HTTPS. Without it, commands and files travel unencrypted, and without
	// `winrm_use_ntlm` so does the password.
	WinRMUseSSL bool `hcl:"winrm_use_ssl,optional"`

	// Accept any TLS certificate. Needed for the self-signed certificate that Windows
	// usually has. Needs `winrm_use_ssl`.
	WinRMInsecure bool `hcl:"winrm_insecure,optional"`

	// Authenticate with NTLM, which does not send the password itself, instead of HTTP basic
	// authentication.
	WinRMUseNTLM bool `hcl:"winrm_use_ntlm,optional"`

	// Connect directly, even if HTTP_PROXY and the like are set.
	WinRMNoProxy bool `hcl:"winrm_no_proxy,optional"`
}

// Defaults are the settings of a template that has none.
func Defaults() Settings { return Settings{WinRMTimeout: 30 * time.Minute} }

// ServicePort returns the port to connect to.
func (o *Settings) ServicePort() int {
	switch {
	case o.WinRMPort != 0:
		return o.WinRMPort
	case o.WinRMUseSSL:
		return 5986
	}
	return 5985
}

// ValidateWinRM reports what is wrong with the settings. It is for templates whose
// communicator is winrm.
func (o *Settings) ValidateWinRM(c *schema.Checker) {
	o.WinRMTimeout = cmp.Or(o.WinRMTimeout, Defaults().WinRMTimeout) // 0 says that it is not set
	if o.WinRMUsername == "" {
		c.Errorf(&o.WinRMUsername, "Missing winrm_username", "WinRM needs the name of the user to log in as, such as Administrator.")
	}
	if o.WinRMPort < 0 || o.WinRMPort >= 1<<16 {
		c.Errorf(&o.WinRMPort, "Not a TCP port", "winrm_port is %d; ports go from 1 to 65535.", o.WinRMPort)
	}
	if o.WinRMTimeout < 0 {
		c.Errorf(&o.WinRMTimeout, "Negative duration", "winrm_timeout cannot be negative.")
	}
	if o.WinRMInsecure && !o.WinRMUseSSL && c.Known(&o.WinRMUseSSL) {
		c.Warnf(&o.WinRMInsecure, "No certificate to accept", "winrm_insecure applies only to HTTPS; set winrm_use_ssl to use it.")
	}
}
