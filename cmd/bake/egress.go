package main

import "github.com/spf13/pflag"

// egressFlag registers the flag for what machines of the local cloud can reach.
func egressFlag(flags *pflag.FlagSet, value *string) {
	flags.StringVar(value, "allow-egress", "", "let local machines also connect to these `addresses` on the host and on private networks: all, or a comma-separated list of ADDRESS, CIDR or NAME, each with an optional :PORT; default: $BAKE_ALLOW_EGRESS")
}
