// Package wire implements both sides of the protocol of Packer plugin binaries: many
// streams over one connection, calls in MessagePack on each of them, descriptions of
// options, and values. It is independent of components.
//
// Data from the other end is considered hostile. Everything that is read is limited in
// depth, number and memory, and can cause nothing worse than an error.
package wire
