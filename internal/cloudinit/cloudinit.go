// Package cloudinit determines the state of cloud-init from /run/cloud-init.
package cloudinit

// Busy defines the sh function busy, which succeeds while cloud-init is running. It fails
// if cloud-init is not installed, is disabled or has finished. cloud-init's result is a
// link to /var/lib/cloud, which dangles once that directory is cleaned; each boot of the
// machine deletes the link first.
const Busy = `busy() { [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ] && [ ! -e /run/cloud-init/result.json ] && [ ! -L /run/cloud-init/result.json ]; }
`
