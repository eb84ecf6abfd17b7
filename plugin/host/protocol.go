package host

import (
	"io/fs"
	"time"
)

// The arguments of calls of Communicator. Streams are named by their numbers; 0 is none.
type (
	startArgs struct {
		Command                                                         string
		StdinStreamId, StdoutStreamId, StderrStreamId, ResponseStreamId uint32
	}
	uploadArgs struct {
		Path           string
		ReaderStreamId uint32
		FileInfo       *fileInfo
	}
	fileInfo struct {
		N string
		S int64
		M fs.FileMode
		T time.Time
	}
	downloadArgs struct {
		Path           string
		WriterStreamId uint32
	}
	dirArgs struct {
		Dst, Src string
		Exclude  []string
	}
)

// commandFinished is the message at the end of a command, in gob. Only the names of its
// fields matter.
type commandFinished struct{ ExitStatus int }

const (
	disconnected = 2300218 // the exit status of a command whose connection was lost
	maxFinished  = 64 << 10
)
