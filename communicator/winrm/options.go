package winrm

import (
	"cmp"
	_ "embed"
	"time"

	"bake/config/schema"
)

// Source is the Go source that documents [Settings], for [schema.Docs].
//
//go:embed options.go
var Source string

// Settings say how a Windows machine is reached where the communicator is
// `winrm`. Builders embed them beside those of SSH.
type Settings struct {
	// User to log in as.
	WinRMUsername string `hcl:"winrm_username,optional"`

	// Password. A builder that can find out the password of the machine it
	// launches does so where this is not set.
	WinRMPassword string `hcl:"winrm_password,optional,secret"`

	// Host name or address. The builder knows it unless it launches nothing.
	WinRMHost string `hcl:"winrm_host,optional"`

	// TCP port. 5985, or with `winrm_use_ssl` 5986, if not set.
	WinRMPort int `hcl:"winrm_port,optional"`

	// How long to try to reach the machine, at first and after each reboot.
	WinRMTimeout time.Duration `hcl:"winrm_timeout,optional"`

	// Talk HTTPS.
	WinRMUseSSL bool `hcl:"winrm_use_ssl,optional"`

	// Accept any certificate. Without it the machine needs one that this host trusts.
	WinRMInsecure bool `hcl:"winrm_insecure,optional"`

	// Log in by NTLM, which does not send the password itself.
	WinRMUseNTLM bool `hcl:"winrm_use_ntlm,optional"`

	// Do not use the HTTP proxy that the environment names.
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
		c.Warnf(&o.WinRMInsecure, "No certificate to accept", "winrm_insecure is about HTTPS, which winrm_use_ssl turns on.")
	}
}
