package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"bake/run/cloudinit"
)

// cloudInitVariable sets how long builds wait for cloud-init, if no flag does.
const cloudInitVariable = cloudinit.Variable

// cloudInitFlag registers the flag for how long builds wait for cloud-init.
func cloudInitFlag(flags *pflag.FlagSet, value *string) {
	flags.StringVar(value, "cloud-init-timeout", "", "wait up to this `duration` for cloud-init on a new machine before the first provisioner; 0: do not wait; default: $"+cloudInitVariable+", or 5m")
}

// cloudInit returns how long builds wait for cloud-init. flag is empty if the flag is not
// set, or if command does not have it.
func (e environ) cloudInit(flag, command string) (time.Duration, error) {
	if flag == "" && e.get(cloudInitVariable) == "" {
		return cloudinit.DefaultTimeout, nil
	}
	d, err := time.ParseDuration(cmp.Or(flag, e.get(cloudInitVariable)))
	switch {
	case err == nil && d >= 0:
		return d, nil
	case flag != "":
		return 0, usageError{fmt.Sprintf("-cloud-init-timeout is %q, which is not a duration such as 10m, or 0", flag), command}
	}
	return 0, fmt.Errorf("%s is %q, which is not a duration such as 10m, or 0", cloudInitVariable, e.get(cloudInitVariable))
}
