// Package release holds what is known of this release of bake.
package release

// Version is that of bake, by semantic versioning.
const Version = "0.1.0"
