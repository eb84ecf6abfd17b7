// Package cloudinit tells from /run/cloud-init how far cloud-init is.
package cloudinit

// Busy is a function of sh, busy, that succeeds while cloud-init is at work: not where it is
// not there, is turned off or has done all. Its result is a link to /var/lib/cloud, which
// leads nowhere once that is cleaned; each start of the machine deletes the link first.
const Busy = `busy() { [ -e /run/cloud-init/enabled ] && [ ! -e /run/cloud-init/disabled ] && [ ! -e /run/cloud-init/result.json ] && [ ! -L /run/cloud-init/result.json ]; }
`
