// Package cloudinit tells from /run/cloud-init how far cloud-init is.
package cloudinit

// Busy defines the sh function busy, which succeeds while cloud-init is at work. It fails
// if cloud-init is not installed, is turned off or has finished. cloud-init's result is a
// link to /var/lib/cloud, which dangles once that directory is cleaned; each start of the
// machine deletes the link first.
const Busy = `busy() { [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ] && [ ! -e /run/cloud-init/result.json ] && [ ! -L /run/cloud-init/result.json ]; }
`
