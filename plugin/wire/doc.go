// Package wire speaks the protocol of Packer plugin binaries, from both sides: many
// streams over one connection, calls in MessagePack on each of them, descriptions of
// options and values. It knows no components.
//
// What comes from the other end is hostile. Everything that is read is limited in depth,
// in number and in memory, and an error is all that it can cause.
package wire
