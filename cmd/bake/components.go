package main

import (
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
	"bake/builder/amazon/instance"
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
	ppshelllocal "bake/postprocessor/shelllocal"
	"bake/provisioner"
	"bake/provisioner/breakpoint"
	"bake/provisioner/file"
	"bake/provisioner/shell"
	"bake/provisioner/shelllocal"
	"bake/provisioner/sleep"
	"bake/provisioner/windowsrestart"
	"bake/provisioner/windowsshell"
)

// parts are what components are made of.
type parts struct {
	cloud amazon.Cloud // stands in for AWS; the zero value is AWS
	env   environ
	ask   *prompter // nil without a terminal
	now   func() time.Time
}

// catalog holds every component there is.
type catalog struct {
	engine.Components
	data component.Registry[datasource.DataSource]
}

// all makes every component.
func (p parts) all() catalog {
	p.cloud.Watchers = &amazon.Watchers{}
	return catalog{
		engine.Components{
			Builders: component.NewRegistry[builder.Builder](
				chroot.Factory(p.cloud),
				ebs.Factory(p.cloud),
				ebssurrogate.Factory(p.cloud),
				ebsvolume.Factory(p.cloud),
				instance.Factory(p.cloud),
				filebuilder.Component(),
				null.Component(),
			),
			Provisioners: component.NewRegistry[provisioner.Provisioner](
				breakpoint.Component(p.terminal),
				file.Component(),
				shell.Component(),
				shelllocal.Component(),
				sleep.Component(),
				windowsrestart.Component(),
				windowsshell.Component(),
			),
			PostProcessors: component.NewRegistry[postprocessor.PostProcessor](
				amiimport.Factory(p.cloud),
				artifice.Component(),
				checksum.Component(),
				compress.Component(),
				manifest.Component(p.now),
				ppshelllocal.Component(),
			),
		},
		component.NewRegistry[datasource.DataSource](
			amidata.Factory(p.cloud, p.env),
			httpdata.Component(),
			nulldata.Component(),
			parameterstore.Factory(p.cloud, p.env),
			secretsmanager.Factory(p.cloud, p.env),
		),
	}
}

// terminal opens what the user types at.
func (p parts) terminal() (io.ReadCloser, error) {
	if p.ask == nil {
		return nil, errNoTerminal
	}
	return p.ask.terminal(), nil
}
