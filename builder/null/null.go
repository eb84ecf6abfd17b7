// Package null is a builder without a result: it runs the provisioners on an existing
// machine.
package null

import (
	"context"

	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/communicator/ssh"
	"bake/communicator/winrm"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// Options are the arguments of a null source.
type Options struct {
	ssh.Options
	winrm.Settings

	// Has no effect, and causes a warning: this builder does not launch a machine that could
	// be given a key pair. The machine must already accept the key in
	// `ssh_private_key_file`.
	SSHKeyPairName string `hcl:"ssh_keypair_name,optional"`

	// Has no effect, like `ssh_keypair_name`.
	TemporaryKeyPairName string `hcl:"temporary_key_pair_name,optional"`

	// Has no effect, like `ssh_keypair_name`.
	TemporaryKeyPairType ssh.KeyType `hcl:"temporary_key_pair_type,optional"`

	// Has no effect, like `ssh_keypair_name`.
	TemporaryKeyPairBits int `hcl:"temporary_key_pair_bits,optional"`

	// Has no effect, like `ssh_keypair_name`: there is no temporary key to remove.
	SSHClearAuthorizedKeys bool `hcl:"ssh_clear_authorized_keys,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	o.warnOfKeyPair(c)
	if !c.Known(&o.Communicator) {
		return
	}
	switch o.Communicator {
	case ssh.None:
		return
	case ssh.WinRM:
		o.ValidateWinRM(c)
		if o.WinRMHost == "" {
			c.Errorf(&o.WinRMHost, "Missing winrm_host", "The null builder does not launch a machine; set winrm_host to the machine to use.")
		}
		if o.WinRMPassword == "" {
			c.Errorf(&o.WinRMPassword, "Missing winrm_password", "The null builder does not launch a machine; set winrm_password to log in to an existing one.")
		}
		return
	}
	if o.Host == "" {
		c.Errorf(&o.Host, "Missing ssh_host", `The null builder does not launch a machine; set ssh_host to the machine to use, or communicator = "none" to use none.`)
	}
	given := 0
	for _, set := range []bool{o.Password != "" || !c.Known(&o.Password), o.PrivateKeyFile != "" || !c.Known(&o.PrivateKeyFile), o.AgentAuth || !c.Known(&o.AgentAuth)} {
		if set {
			given++
		}
	}
	switch given {
	case 0:
		c.Errorf(&o.Username, "No way to log in", "Set one of ssh_password, ssh_private_key_file and ssh_agent_auth.")
	case 2, 3:
		c.Errorf(&o.Username, "Several ways to log in", "Set only one of ssh_password, ssh_private_key_file and ssh_agent_auth.")
	}
}

// warnOfKeyPair warns about options for a key pair, which have no effect.
func (o *Options) warnOfKeyPair(c *schema.Checker) {
	for _, option := range []struct {
		ptr any
		set bool
	}{
		{&o.SSHKeyPairName, o.SSHKeyPairName != ""},
		{&o.TemporaryKeyPairName, o.TemporaryKeyPairName != ""},
		{&o.TemporaryKeyPairType, o.TemporaryKeyPairType != ""},
		{&o.TemporaryKeyPairBits, o.TemporaryKeyPairBits != 0},
		{&o.SSHClearAuthorizedKeys, o.SSHClearAuthorizedKeys},
	} {
		if option.set {
			c.Warnf(option.ptr, "Argument without effect", "The null builder launches no machine, creates no key pair and leaves authorized_keys alone, so %s has no effect.", c.Name(option.ptr))
		}
	}
}

// Factory returns the factory of the null builder.
func Factory() component.Factory[builder.Builder] {
	return component.Define("null", func() Options { return Options{Options: ssh.Defaults(), Settings: winrm.Defaults()} },
		func(o *Options, _ *schema.Source) builder.Builder { return &null{o} }).
		Exporting(map[string]cty.Type{})
}

type null struct{ options *Options }

// Build implements [builder.Builder].
func (b *null) Build(ctx context.Context, s *step.Scope, hooks builder.Hooks) (*builder.Artifact, error) {
	conn, err := step.Do(ctx, s, "connect", func(ctx context.Context) (m builder.Machine, err error) {
		if o := b.options; o.Communicator == ssh.WinRM {
			m.Communicator, err = winrm.Connect(ctx, s, &o.Settings, o.PauseBeforeConnecting, winrm.Target{})
		} else {
			m.Communicator, err = ssh.Connect(ctx, s, &o.Options, ssh.Target{})
		}
		if err != nil {
			return m, err
		}
		m.Data = builder.MachineData(m.Communicator, builder.Facts{RunID: s.Run.ID, ID: "Null", Communicator: string(b.options.Communicator)})
		return m, nil
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if err := hooks.Provision(ctx, conn); err != nil {
		return nil, err
	}
	return &builder.Artifact{
		BuilderID: "fnoeding.null",
		ID:        "Null",
		Text:      "Did not export anything. This is the null builder",
		Data:      builder.Data{"ID": builder.Text("Null")},
	}, nil
}
