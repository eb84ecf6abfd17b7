// Package builtin puts every component that is built into bake into registries, and
// says which of Packer's plugins they stand in for.
package builtin

import (
	"errors"
	"io"
	"time"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/amidata"
	"bake/builder/amazon/amiimport"
	"bake/builder/amazon/chroot"
	"bake/builder/amazon/ebs"
	"bake/builder/amazon/ebssurrogate"
	"bake/builder/amazon/ebsvolume"
	"bake/builder/amazon/images"
	"bake/builder/amazon/instance"
	"bake/builder/amazon/kmskey"
	"bake/builder/amazon/parameterstore"
	"bake/builder/amazon/secretsmanager"
	filebuilder "bake/builder/file"
	"bake/builder/null"
	"bake/component"
	"bake/datasource"
	httpdata "bake/datasource/http"
	nulldata "bake/datasource/null"
	"bake/engine"
	"bake/postprocessor"
	"bake/postprocessor/artifice"
	"bake/postprocessor/checksum"
	"bake/postprocessor/compress"
	"bake/postprocessor/manifest"
	"bake/postprocessor/provenance"
	ppshelllocal "bake/postprocessor/shelllocal"
	"bake/provisioner"
	"bake/provisioner/ansible"
	"bake/provisioner/ansiblelocal"
	"bake/provisioner/breakpoint"
	"bake/provisioner/file"
	"bake/provisioner/hcpsbom"
	"bake/provisioner/powershell"
	"bake/provisioner/shell"
	"bake/provisioner/shelllocal"
	"bake/provisioner/sleep"
	"bake/provisioner/windowsrestart"
	"bake/provisioner/windowsshell"
)

// Parts are what components are made of. The zero value makes components that can be
// checked, and run in AWS.
type Parts struct {
	Cloud amazon.Cloud // stands in for AWS; the zero value is AWS
	Env   []string     // "NAME=value", for the clients of AWS

	// Terminal opens what the user types at, for components that wait for that. It
	// fails if there is nobody; nil is the same.
	Terminal func() (io.ReadCloser, error)

	// Connect is as in run.Options: with -through and a socket, the command connects
	// through this process.
	Connect []string

	Now func() time.Time // nil: time.Now
}

// Catalog holds every component that is built in.
type Catalog struct {
	Builders       component.Registry[builder.Builder]
	Provisioners   component.Registry[provisioner.Provisioner]
	PostProcessors component.Registry[postprocessor.PostProcessor]
	DataSources    component.Registry[datasource.DataSource]
}

// Components are those of the catalog, for a template that needs no others.
func (c Catalog) Components() engine.Components {
	return engine.Components{Builders: c.Builders, Provisioners: c.Provisioners, PostProcessors: c.PostProcessors, DataSources: c.DataSources}
}

// Catalog makes every component.
func (p Parts) Catalog() Catalog {
	if p.Terminal == nil {
		p.Terminal = func() (io.ReadCloser, error) { return nil, errors.New("there is no terminal to ask on") }
	}
	if p.Now == nil {
		p.Now = time.Now
	}
	p.Cloud.Watchers, p.Cloud.Users = &amazon.Watchers{}, images.Users
	return Catalog{
		Builders: component.NewRegistry[builder.Builder](
			chroot.Factory(p.Cloud),
			ebs.Factory(p.Cloud),
			ebssurrogate.Factory(p.Cloud),
			ebsvolume.Factory(p.Cloud),
			instance.Factory(p.Cloud),
			filebuilder.Factory(),
			null.Factory(),
		),
		Provisioners: component.NewRegistry[provisioner.Provisioner](
			ansible.Factory(p.Connect),
			ansiblelocal.Factory(),
			breakpoint.Factory(p.Terminal),
			file.Factory(),
			hcpsbom.Factory(p.Now),
			powershell.Factory(),
			shell.Factory(),
			shelllocal.Factory(),
			sleep.Factory(),
			windowsrestart.Factory(),
			windowsshell.Factory(),
		),
		PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
			amiimport.Factory(p.Cloud),
			artifice.Factory(),
			checksum.Factory(),
			compress.Factory(),
			manifest.Factory(p.Now),
			provenance.Factory(p.Now, kmskey.Opener(p.Cloud)),
			ppshelllocal.Factory(),
		),
		DataSources: component.NewRegistry[datasource.DataSource](
			amidata.Factory(p.Cloud, p.Env),
			httpdata.Factory(),
			nulldata.Factory(),
			parameterstore.Factory(p.Cloud, p.Env),
			secretsmanager.Factory(p.Cloud, p.Env),
		),
	}
}
