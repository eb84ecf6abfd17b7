package sandbox

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMeminfo(t *testing.T) {
	const host = `MemTotal:       24683768 kB
MemFree:        16937000 kB
MemAvailable:   23319000 kB
Buffers:          100000 kB
Cached:          6000000 kB
SwapTotal:       1000000 kB
Shmem:             21000 kB
HugePages_Total:       0
`
	const v2 = "anon 1048576\nfile 4194304\nshmem 1048576\nactive_file 1048576\ninactive_file 2097152\nslab_reclaimable 524288\n"
	const v1 = "cache 1\ntotal_cache 4194304\ntotal_rss 1048576\ntotal_shmem 1048576\ntotal_active_file 1048576\ntotal_inactive_file 2097152\nhierarchical_memory_limit 9\n"
	use := parseMemoryStat(v2, "")
	use[""] = 8 << 20
	const want = `MemTotal:         131072 kB
MemFree:          122880 kB
MemAvailable:     126464 kB
Buffers:               0 kB
Cached:             4096 kB
SwapTotal:             0 kB
Shmem:              1024 kB
HugePages_Total:       0
`
	if got := meminfo(host, 128<<20, use); got != want {
		t.Errorf("got\n%s", got)
	}
	older := parseMemoryStat(v1, "total_")
	for name, value := range use {
		if name != "" && name != "slab_reclaimable" && older[name] != value {
			t.Errorf("%s is %d by version 1, %d by version 2", name, older[name], value)
		}
	}
	// More than the limit can be in use, because of the supervisor's own memory.
	use[""] = 130 << 20
	if got := meminfo(host, 128<<20, use); !strings.Contains(got, "MemFree:               0 kB") {
		t.Errorf("got\n%s", got)
	}
}

func TestProcessors(t *testing.T) {
	const host = `cpu  111 222 333
cpu0 1 2 3
cpu1 10 20 30
cpu2 100 200 300
intr 4711 1 2 3
ctxt 8
btime 1000
softirq 99 1 2
`
	const want = `cpu  110 220 330
cpu0 10 20 30
cpu1 100 200 300
intr 4711
ctxt 8
btime 1060
softirq 99
`
	if got := stat(host, []int{1, 2}, 60); got != want {
		t.Errorf("got\n%s", got)
	}
	const info = "processor\t: 0\nmodel name\t: A\n\nprocessor\t: 1\nmodel name\t: B\n\nHardware\t: C\n\n"
	if got := cpuinfo(info, []int{1}); got != "processor\t: 0\nmodel name\t: B\n\nHardware\t: C\n\n" {
		t.Errorf("got %q", got)
	}
}

// TestKernelFile sends requests like the kernel's, and invalid ones.
func TestKernelFile(t *testing.T) {
	text, failed := "0123456789", error(nil)
	k := kernelFile{"/proc/x", func() ([]byte, error) { return []byte(text), failed }}
	le := binary.NativeEndian
	ask := func(code uint32, body ...byte) (string, unix.Errno) {
		request := make([]byte, fuseRequestHeader, fuseRequestHeader+len(body))
		le.PutUint32(request[4:], code)
		le.PutUint64(request[8:], 77)
		reply := k.answer(append(request, body...))
		if reply == nil {
			return "", 0
		}
		if int(le.Uint32(reply)) != len(reply) || le.Uint64(reply[8:]) != 77 {
			t.Errorf("request %d: header %v", code, reply[:16])
		}
		return string(reply[16:]), unix.Errno(-int32(le.Uint32(reply[4:])))
	}
	read := func(offset uint64, size uint32) []byte {
		body := make([]byte, 40)
		le.PutUint64(body[8:], offset)
		le.PutUint32(body[16:], size)
		return body
	}
	for _, test := range []struct {
		offset uint64
		size   uint32
		want   string
	}{{0, 4096, text}, {4, 3, "456"}, {10, 5, ""}, {1 << 63, 1 << 31, ""}, {9, 0, ""}} {
		if got, err := ask(fuseRead, read(test.offset, test.size)...); got != test.want || err != 0 {
			t.Errorf("read of %d at %d: %q, %v", test.size, test.offset, got, err)
		}
	}
	if _, err := ask(fuseRead, 1, 2, 3); err != unix.EINVAL {
		t.Errorf("a read that is cut: %v", err)
	}
	failed = errors.New("no such group")
	if got, err := ask(fuseRead, read(0, 9)...); got != "" || err != unix.EIO {
		t.Errorf("a read that fails: %q, %v", got, err)
	}
	const write = 16
	if _, err := ask(write, 1); err != unix.ENOSYS {
		t.Errorf("a write: %v", err)
	}
	for _, code := range []uint32{fuseForget, fuseBatchForget, fuseInterrupt} {
		if got, err := ask(code); got != "" || err != 0 {
			t.Errorf("request %d is answered: %q, %v", code, got, err)
		}
	}
}
