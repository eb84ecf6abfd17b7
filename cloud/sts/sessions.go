package sts

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"bake/cloud/wire"
)

// Session is an assumed role.
type Session struct {
	Account string
	ARN     string // arn:aws:sts::ACCOUNT:assumed-role/ROLE/NAME
	UserID  string // ROLEID:NAME
	Expires time.Time
}

// Credentials are the credentials of a session.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	Token           string
}

// Sessions issues and verifies credentials. It stores nothing: a session token is the
// session itself, encrypted with Key, so that it stays valid after a restart.
type Sessions struct{ Key []byte }

// prefix is the prefix of the access keys of sessions.
const prefix = "ASIA"

// Temporary reports whether an access key belongs to a session.
func Temporary(accessKey string) bool { return strings.HasPrefix(accessKey, prefix) }

func (s *Sessions) sum(purpose, text string) []byte {
	m := hmac.New(sha256.New, s.Key)
	m.Write([]byte(purpose + "\x00" + text))
	return m.Sum(nil)
}

// Issue returns the credentials of a session. They are the same every time.
func (s *Sessions) Issue(session Session) Credentials {
	session.Expires = session.Expires.UTC()
	text, err := json.Marshal(session)
	if err != nil {
		panic(err) // marshalling plain data never fails
	}
	body := base64.RawURLEncoding.EncodeToString(text)
	return s.credentials(body)
}

func (s *Sessions) credentials(body string) Credentials {
	return Credentials{
		AccessKeyID:     prefix + base32.StdEncoding.EncodeToString(s.sum("id", body))[:16],
		SecretAccessKey: base64.StdEncoding.EncodeToString(s.sum("secret", body))[:40],
		Token:           body + "." + base64.RawURLEncoding.EncodeToString(s.sum("token", body)),
	}
}

// Open returns the secret key and the session of an access key and a token. Its error is
// EC2's for an invalid or expired token.
func (s *Sessions) Open(accessKey, token string, now time.Time) (secret string, session Session, err error) {
	invalid := &wire.Error{Code: "InvalidClientTokenId", Message: "The security token included in the request is invalid.", Status: http.StatusForbidden}
	body, _, _ := strings.Cut(token, ".")
	c := s.credentials(body)
	if !hmac.Equal([]byte(c.Token), []byte(token)) || c.AccessKeyID != accessKey {
		return "", Session{}, invalid
	}
	text, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return "", Session{}, invalid
	}
	if err := json.Unmarshal(text, &session); err != nil {
		return "", Session{}, invalid
	}
	if !now.Before(session.Expires) {
		return "", Session{}, &wire.Error{Code: "ExpiredToken", Message: "The security token included in the request is expired", Status: http.StatusForbidden}
	}
	return c.SecretAccessKey, session, nil
}
