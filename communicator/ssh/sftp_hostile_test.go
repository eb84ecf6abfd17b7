package ssh_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"

	"bake/communicator"
	"bake/communicator/ssh"
)

// tree is a directory of a hostile machine. Everything in it is what entry says.
type tree struct {
	list  func(dir string, at int64) []fs.FileInfo // from entry number at; none: no more
	stat  func(name string) fs.FileInfo
	bytes func(at int64) int // how many can be read there
}

// entry is a file or directory as a machine describes it.
type entry struct {
	name string
	size int64
	mode fs.FileMode
}

func (e entry) Name() string       { return e.name }
func (e entry) Size() int64        { return e.size }
func (e entry) Mode() fs.FileMode  { return e.mode }
func (e entry) ModTime() time.Time { return time.Time{} }
func (e entry) IsDir() bool        { return e.mode.IsDir() }
func (e entry) Sys() any           { return nil }

type listing func(at int64) []fs.FileInfo

func (l listing) ListAt(to []fs.FileInfo, at int64) (int, error) {
	n := copy(to, l(at))
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (t *tree) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		return listing(func(at int64) []fs.FileInfo { return t.list(r.Filepath, at) }), nil
	}
	info := t.stat(r.Filepath)
	if info == nil {
		return nil, fs.ErrNotExist
	}
	return listing(func(at int64) []fs.FileInfo { return []fs.FileInfo{info}[min(1, at):] }), nil
}

type reader func(at int64) int

func (r reader) ReadAt(b []byte, at int64) (int, error) {
	n := min(len(b), r(at))
	if n == 0 {
		return 0, io.EOF
	}
	for i := range b[:n] {
		b[i] = 'x'
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (t *tree) Fileread(*sftp.Request) (io.ReaderAt, error) { return reader(t.bytes), nil }

// serve answers SFTP with the tree.
func (t *tree) serve(c io.ReadWriteCloser) {
	_ = sftp.NewRequestServer(c, sftp.Handlers{FileGet: t, FileList: t}).Serve()
}

const aFile, aDir = fs.FileMode(0o644), fs.ModeDir | 0o755

// get downloads /d from a machine that serves SFTP.
func (s *setup) get(t *testing.T, serve func(io.ReadWriteCloser)) (dir string, err error) {
	t.Helper()
	s.SFTP, s.options.FileTransferMethod = serve, ssh.SFTP
	c, err := s.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dir = t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return dir, c.Get(t.Context(), "/d", root)
}

// Whatever a machine says that its directories hold, a download ends, and its error says why.
func TestHostileDirectories(t *testing.T) {
	only := func(names ...string) func(string, int64) []fs.FileInfo {
		return func(_ string, at int64) (list []fs.FileInfo) {
			for _, name := range names {
				list = append(list, entry{name, 1, aDir})
			}
			return list[min(at, int64(len(list))):]
		}
	}
	anything := func(name string) fs.FileInfo { return entry{path.Base(name), 1, aDir} }
	for name, tt := range map[string]struct {
		tree tree
		want string
	}{
		"itself":     {tree{list: only("x/."), stat: anything}, `not the name of a file`},
		"empty name": {tree{list: only(""), stat: anything}, `not the name of a file`},
		"above":      {tree{list: only("x/.."), stat: anything}, `not the name of a file`},
		"ring":       {tree{list: only("a", "b"), stat: anything}, "a symbolic link on the machine leads to a directory that contains it"},
		"longer ring": {tree{list: func(dir string, at int64) []fs.FileInfo {
			return only(path.Base(dir)[:0]+string('a'+byte(strings.Count(dir, "/")%3)))(dir, at)
		}, stat: anything}, "a symbolic link on the machine leads to a directory that contains it"},
		"ever deeper": {tree{list: func(dir string, at int64) []fs.FileInfo {
			return only(fmt.Sprint("n", strings.Count(dir, "/")))(dir, at)
		}, stat: anything}, "deep"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				_, err := s.get(t, tt.tree.serve)
				want(t, err, "download of /d: ", tt.want)
			})
		})
	}
}

// A listing that does not end has a limit, and several long ones do not add up.
func TestEndlessListing(t *testing.T) {
	one := packet(0, uint32(4), []byte("file"), uint32(0), uint32(0))[5:]
	for lists, packets := range map[int]int{1: 1000, 4: 80} { // of 240 KB each
		bubble(t, func(t *testing.T, s *setup) {
			read, listed := 0, 0
			_, err := s.get(t, raw(func(kind byte, id uint32) []byte {
				switch kind {
				case sshInit:
					return packet(sshVersion, uint32(3))
				case sshStat:
					if listed++; listed > 1 && listed > lists {
						return packet(sshStatus, id, uint32(2), uint32(0), uint32(0)) // no such file
					}
					read = 0
					return packet(sshAttrs, id, uint32(4), uint32(0o40755))
				case sshOpenDir:
					return packet(sshHandle, id, uint32(1), byte('h'))
				case sshReadDir:
					if read++; read <= packets {
						return packet(sshName, id, uint32(15_000), bytes.Repeat(one, 15_000))
					}
					return packet(sshStatus, id, uint32(1), uint32(0), uint32(0)) // the end
				}
				return packet(sshStatus, id, uint32(0), uint32(0), uint32(0))
			}))
			if lists == 1 {
				want(t, err, "longer than 32 MiB", `ssh_file_transfer_method = "scp"`)
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// Of a file no more is read than its size, and a file without a size has a limit.
func TestHostileFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		size int64
		read func(at int64) int
		got  int // -1: none, because there is an error
		want string
	}{
		"endless":               {10, func(int64) int { return 1 << 20 }, 10, ""},
		"endless and large":     {1 << 20, func(int64) int { return 1 << 20 }, 1 << 20, ""},
		"endless without size":  {0, func(int64) int { return 1 << 20 }, -1, "more than"},
		"a size of the kernel":  {0, func(at int64) int { return int(max(0, 5000-at)) }, 5000, ""},
		"cut":                   {1 << 20, func(at int64) int { return int(max(0, 300_000-at)) }, -1, "300000 of 1048576 bytes"},
		"exact":                 {300_000, func(at int64) int { return int(max(0, 300_000-at)) }, 300_000, ""},
		"a size that is absurd": {1 << 62, func(int64) int { return 0 }, -1, "0 of 4611686018427387904 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				hostile := tree{stat: func(string) fs.FileInfo { return entry{"d", tt.size, aFile} }, bytes: tt.read}
				dir, err := s.get(t, hostile.serve)
				b, missing := os.ReadFile(filepath.Join(dir, "d"))
				switch {
				case tt.got < 0:
					want(t, err, "download of /d: ", tt.want)
					if !errors.Is(missing, fs.ErrNotExist) {
						t.Errorf("%d bytes of it are left", len(b))
					}
				case err != nil || len(b) != tt.got:
					t.Errorf("got %d bytes, %v; want %d", len(b), err, tt.got)
				}
			})
		})
	}
}

// raw answers each packet of SFTP with what answer returns for its type and number. It gives up
// when answer returns nil, and leaves the session open.
func raw(answer func(kind byte, id uint32) []byte) func(io.ReadWriteCloser) {
	return func(c io.ReadWriteCloser) {
		head := make([]byte, 9)
		for {
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head))-5); err != nil {
				return
			}
			b := answer(head[4], binary.BigEndian.Uint32(head[5:]))
			if b == nil {
				return
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
}

// packet is one of SFTP: its type and the rest.
func packet(kind byte, rest ...any) []byte {
	var b bytes.Buffer
	b.WriteByte(kind)
	for _, r := range rest {
		_ = binary.Write(&b, binary.BigEndian, r)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(b.Len())), b.Bytes()...)
}

const (
	sshInit, sshVersion, sshOpen, sshRead, sshWrite, sshOpenDir, sshReadDir, sshStat = 1, 2, 3, 5, 6, 11, 12, 17
	sshStatus, sshHandle, sshData, sshName, sshAttrs                                 = 101, 102, 103, 104, 105
)

// Packets that are no answers end a transfer, at once or, if they do not arrive, in minutes.
func TestHostilePackets(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(id uint32) []byte
		limit  time.Duration
		want   string
	}{
		"another number":  {func(id uint32) []byte { return packet(sshStatus, id+7, uint32(0), uint32(0), uint32(0)) }, time.Second, "download of /d: "},
		"another type":    {func(id uint32) []byte { return packet(sshData, id, uint32(1), byte(1)) }, time.Second, "download of /d: "},
		"four gigabytes":  {func(uint32) []byte { return []byte{0xff, 0xff, 0xff, 0xff, sshAttrs} }, time.Second, "download of /d: "},
		"nothing in it":   {func(uint32) []byte { return []byte{0, 0, 0, 0} }, time.Second, "download of /d: "},
		"too short":       {func(id uint32) []byte { return packet(sshAttrs, id, uint32(0xffffffff)) }, time.Second, "download of /d: "},
		"twice the same":  {func(id uint32) []byte { return bytes.Repeat(packet(sshStatus, id, uint32(0), uint32(0), uint32(0)), 2) }, time.Second, "download of /d: "},
		"no attributes":   {func(id uint32) []byte { return packet(sshStatus, id, uint32(0), uint32(0), uint32(0)) }, time.Second, "without what was asked for"},
		"none":            {func(uint32) []byte { return nil }, 3 * time.Minute, "has not answered for 2m"},
		"only its begin":  {func(id uint32) []byte { return packet(sshAttrs, id, uint32(1))[:11] }, 3 * time.Minute, "has not answered for 2m"},
		"a packet of air": {func(id uint32) []byte { return packet(sshAttrs) }, time.Second, "download of /d: "},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				start := time.Now()
				_, err := s.get(t, raw(func(kind byte, id uint32) []byte {
					if kind == sshInit {
						return packet(sshVersion, uint32(3))
					}
					return tt.answer(id)
				}))
				want(t, err, tt.want)
				if took := time.Since(start); took > tt.limit {
					t.Errorf("it took %s", took)
				}
				if tt.limit > time.Minute && !s.says.has("has not answered for 1m") {
					t.Errorf("the user has read %q", s.says.lines)
				}
			})
		})
	}
}

// Reads and opens that succeed without a result end a download.
func TestHollowAnswers(t *testing.T) {
	ok := func(id uint32) []byte { return packet(sshStatus, id, uint32(0), uint32(0), uint32(0)) }
	for name, hollow := range map[string]map[byte]func(id uint32) []byte{
		"open":            {sshOpen: ok},
		"read":            {sshRead: ok},
		"nothing is read": {sshRead: func(id uint32) []byte { return packet(sshData, id, uint32(0)) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				_, err := s.get(t, raw(func(kind byte, id uint32) []byte {
					switch {
					case hollow[kind] != nil:
						return hollow[kind](id)
					case kind == sshInit:
						return packet(sshVersion, uint32(3))
					case kind == sshStat:
						return packet(sshAttrs, id, uint32(5), uint64(1<<20), uint32(0o100644))
					case kind == sshOpen:
						return packet(sshHandle, id, uint32(1), byte('h'))
					}
					return ok(id)
				}))
				want(t, err, "without what was asked for")
			})
		})
	}
}

// A machine that takes a part of an upload and no more ends the upload in minutes; one that is slow
// does not, and nobody hears that it does not answer.
func TestStalledUpload(t *testing.T) {
	for name, pause := range map[string]time.Duration{"stalled": 0, "slow": 32 * time.Second} { // as 64 kbit/s take for 255 KB
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *setup) {
				n := 0
				s.options.FileTransferMethod, s.SFTP = ssh.SFTP, raw(func(kind byte, id uint32) []byte {
					switch kind {
					case sshInit:
						return packet(sshVersion, uint32(3))
					case sshStat:
						return packet(sshAttrs, id, uint32(4), uint32(0o40755))
					case sshOpen:
						return packet(sshHandle, id, uint32(1), byte('h'))
					case sshWrite:
						if n++; n > 10 && pause == 0 {
							synctest.Wait()
							return nil
						}
						time.Sleep(pause)
					}
					return packet(sshStatus, id, uint32(0), uint32(0), uint32(0))
				})
				c, err := s.connect(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				start := time.Now()
				err = c.Put(t.Context(), "/tmp", communicator.File("x", 0o600, make([]byte, 15*32<<10)))
				if pause == 0 {
					want(t, err, "has not answered for 2m")
				} else if err != nil || time.Since(start) < 3*time.Minute || s.says.has("has not answered") {
					t.Errorf("got %v after %s; said %q", err, time.Since(start), s.says.lines)
				}
				between(t, "the upload", time.Since(start), 2*time.Minute, 10*time.Minute)
			})
		})
	}
}
