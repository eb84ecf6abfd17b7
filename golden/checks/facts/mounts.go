package facts

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

func askMount(p *plan, q Question) reader {
	table := p.probe("p_text", "/proc/self/mountinfo")
	usage := -1
	if q.asks("usage") {
		seconds := max(1, (q.patience(time.Second)+time.Second-1)/time.Second)
		usage = p.short("p_usage", strconv.FormatInt(int64(seconds), 10), q.Key)
	}
	return func(r []reply) Answer {
		if why := r[table].failed(); why != "" {
			return all(unknown(why), q)
		}
		a := mounted(string(r[table].out), q.Key)
		if a == nil {
			return absent("exists", "nothing is mounted there", q.Attributes...).with("exists", known(false))
		}
		if usage >= 0 {
			a["usage"] = used(r[usage])
		}
		return a
	}
}

// mounted parses mountinfo. The first entry for a directory counts.
func mounted(table, dir string) Answer {
	for line := range strings.Lines(table) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		end := slices.Index(f, "-")
		if end < 6 || len(f) < end+4 || unescape(f[4]) != dir {
			continue
		}
		var opts []string
		for _, o := range strings.Split(f[5], ",") {
			if !slices.Contains(opts, o) {
				opts = append(opts, o)
			}
		}
		return Answer{
			"exists": known(true), "opts": known(opts), "vfs-opts": known(commas(f[end+3])),
			"source": known(unescape(f[end+2])), "filesystem": known(unescape(f[end+1])),
		}
	}
	return nil
}

// unescape replaces \ooo, as mountinfo writes spaces and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// commas splits at commas that are not in double quotes.
func commas(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(c rune) bool {
		if c == '"' {
			quoted = !quoted
		}
		return c == ',' && !quoted
	})
}

// used returns the share of blocks in use, in percent.
func used(r reply) Fact {
	if why := r.failed(); why != "" {
		return unknown(why)
	}
	var blocks, free uint64
	if _, err := fmt.Sscan(string(r.out), &blocks, &free); err != nil || free > blocks {
		return unknown(fmt.Sprintf("stat says %.40q", r.out))
	}
	if blocks == 0 {
		return unknown("the file system has no blocks")
	}
	return known(int64(math.Round(100 * (1 - float64(free)/float64(blocks)))))
}

func askInterface(p *plan, q Question) reader {
	if strings.Contains(q.Key, "/") || q.Key == "." || q.Key == ".." {
		return func([]reply) Answer {
			return absent("exists", "there is no such interface", "mtu", "addrs")
		}
	}
	addrs := ""
	if q.asks("addrs") {
		addrs = "addrs"
	}
	id := p.short("p_interface", q.Key, addrs)
	return func(r []reply) Answer {
		there, rest, _ := strings.Cut(string(r[id].out), "\n")
		if there != "there" {
			if why := r[id].failed(); why != "" {
				return all(unknown(why), q)
			}
			return absent("exists", "there is no such interface", "mtu", "addrs")
		}
		mtu, list, _ := strings.Cut(rest, "\n")
		a := Answer{"exists": known(true), "mtu": whole(mtu), "addrs": known(cidrs(list))}
		if why := r[id].failed(); why != "" {
			a["addrs"] = unknown(why)
		}
		return a
	}
}

// cidrs parses the addresses in the output of "ip -o addr".
func cidrs(list string) []string {
	all := []string{}
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		for i := 0; i+1 < len(f); i++ {
			if f[i] != "inet" && f[i] != "inet6" {
				continue
			}
			addr := f[i+1]
			if i+3 < len(f) && f[i+2] == "peer" { // the prefix length follows the peer's address
				_, bits, _ := strings.Cut(f[i+3], "/")
				addr += "/" + bits
			}
			all = append(all, addr)
			break
		}
	}
	return all
}
