package provenance

import (
	"context"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"bake/golden/attest"
	"bake/internal/envvar"
)

// sourceOf returns the repository that contains the template, with its commit if that is
// known.
func (r *run) sourceOf(ctx context.Context) attest.Resource {
	uri, commit := r.SourceURI, ""
	env := func(name string) string { return envvar.Get(r.scope.Run.Env, name) }
	switch {
	case uri != "":
	case env("GITHUB_REPOSITORY") != "" && env("GITHUB_SERVER_URL") != "":
		uri, commit = env("GITHUB_SERVER_URL")+"/"+env("GITHUB_REPOSITORY"), env("GITHUB_SHA")
	case env("CI_PROJECT_URL") != "":
		uri, commit = env("CI_PROJECT_URL"), env("CI_COMMIT_SHA")
	default:
		uri, commit = r.git(ctx, "config", "--get", "remote.origin.url"), r.git(ctx, "rev-parse", "HEAD")
	}
	out := attest.Resource{URI: withoutUser(uri)}
	if r.SourceURI == "" {
		out.URI = repository(uri)
	}
	if out.URI != "" && commit != "" {
		out.Digest = map[string]string{"gitCommit": commit}
	}
	return out
}

// git returns the output of a Git command in the current directory; empty if it fails.
func (r *run) git(ctx context.Context, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = r.scope.Run.Env
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// withoutUser returns a URI without its user name and password, either of which may be a
// secret. It changes nothing else.
func withoutUser(uri string) string {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return uri
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return scheme + "://" + rest[strings.LastIndexByte(rest[:end], '@')+1:]
}

// repository returns the URI of a Git repository without anything that grants access:
// user names, passwords and the query.
func repository(s string) string {
	if s == "" {
		return ""
	}
	if !strings.Contains(s, "://") { // user@host:path, or a local path
		host, path, ok := strings.Cut(s, ":")
		if !ok || strings.Contains(host, "/") {
			return ""
		}
		s = "ssh://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + strings.TrimPrefix(path, "/")
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "file" || u.Host == "" {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return "git+" + u.String()
}
