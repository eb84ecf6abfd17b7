// Package procgroup runs a command so that what it starts ends with it.
package procgroup
