// Package release identifies this release of bake.
package release

// Version is bake's semantic version.
const Version = "0.1.0"
