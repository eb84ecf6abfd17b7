package file

import "bake/provisioner"

// Provisioner makes a provisioner of options whose names may be in any encoding.
func Provisioner(o *Options) provisioner.Provisioner { return &file{Options: o} }
