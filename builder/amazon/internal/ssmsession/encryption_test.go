package ssmsession_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"bake/builder/amazon/internal/agentmessage"
	"bake/builder/amazon/internal/ssmsession"
)

// agent is the machine's end of a session that is encrypted with KMS. It echoes.
type agent struct {
	t    *testing.T
	key  []byte // the data key
	ws   *websocket.Conn
	seq  int64
	lie  bool // about the challenge
	seen [][]byte
}

func (a *agent) aead(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		a.t.Error(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		a.t.Error(err)
	}
	return aead
}

func (a *agent) seal(b []byte) []byte {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	return a.aead(a.key[:32]).Seal(nonce, nonce, b, nil)
}

func (a *agent) open(b []byte) []byte {
	plain, err := a.aead(a.key[32:]).Open(nil, b[:12], b[12:], nil)
	if err != nil {
		a.t.Error(err)
	}
	return plain
}

func (a *agent) send(ctx context.Context, of uint32, payload []byte) {
	m := agentmessage.Message{Kind: agentmessage.OutputData, Seq: a.seq, PayloadType: of, Payload: payload}
	a.seq++
	_ = a.ws.Write(ctx, websocket.MessageBinary, m.Encode(time.Now()))
}

func (a *agent) sendJSON(ctx context.Context, of uint32, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.t.Error(err)
	}
	a.send(ctx, of, b)
}

func (a *agent) serve(w http.ResponseWriter, r *http.Request) {
	var err error
	if a.ws, err = websocket.Accept(w, r, nil); err != nil {
		return
	}
	defer a.ws.CloseNow()
	ctx := context.WithoutCancel(r.Context())
	a.send(ctx, agentmessage.PayloadHandshakeRequest, []byte(`{"AgentVersion":"3.2.0.0","RequestedClientActions":[
		{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"the-key"}},
		{"ActionType":"SessionType","ActionParameters":{"SessionType":"Port"}}]}`))
	question := []byte("who are you?")
	next := int64(0)
	for {
		kind, data, err := a.ws.Read(ctx)
		if err != nil {
			return
		}
		m, err := agentmessage.Decode(data)
		if kind != websocket.MessageBinary || err != nil || m.Kind != agentmessage.InputData {
			continue
		}
		ack, err := agentmessage.Acknowledging(m)
		if err != nil {
			a.t.Error(err)
		}
		_ = a.ws.Write(ctx, websocket.MessageBinary, ack.Encode(time.Now()))
		if m.Seq != next { // repeated
			continue
		}
		next++
		switch m.PayloadType {
		case agentmessage.PayloadHandshakeResponse:
			var response struct {
				ProcessedClientActions []struct {
					ActionType   string
					ActionStatus int
					ActionResult struct{ KMSCipherTextKey []byte }
				}
			}
			if json.Unmarshal(m.Payload, &response) != nil || len(response.ProcessedClientActions) != 2 {
				a.t.Errorf("the response is %s", m.Payload)
				return
			}
			if first := response.ProcessedClientActions[0]; first.ActionStatus != 1 || string(first.ActionResult.KMSCipherTextKey) != "encrypted" {
				return // it refuses
			}
			asked := a.seal(question)
			if a.lie {
				asked[len(asked)-1]++
			}
			a.sendJSON(ctx, agentmessage.PayloadChallenge, map[string][]byte{"Challenge": asked})
		case agentmessage.PayloadChallengeResponse:
			var answer struct{ Challenge []byte }
			if json.Unmarshal(m.Payload, &answer) != nil || !bytes.Equal(a.open(answer.Challenge), question) {
				a.t.Errorf("the challenge was answered with %s", m.Payload)
			}
			a.send(ctx, agentmessage.PayloadHandshakeComplete, []byte(`{}`))
			a.send(ctx, agentmessage.PayloadData, a.seal([]byte("hello\n")))
		case agentmessage.PayloadData:
			a.seen = append(a.seen, bytes.Clone(m.Payload))
			a.send(ctx, agentmessage.PayloadData, a.seal(a.open(m.Payload)))
		}
	}
}

// A session whose preferences name a KMS key is encrypted in both directions.
func TestEncrypted(t *testing.T) {
	for name, tt := range map[string]struct {
		refused error
		size    int
		lie     bool
		want    string
	}{
		"agreed":        {nil, 64, false, ""},
		"refused":       {errors.New("not allowed to use it"), 64, false, "encryption with the KMS key the-key: not allowed to use it"},
		"a short key":   {nil, 16, false, "has 16 bytes"},
		"another's key": {nil, 64, true, "cannot be decrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &agent{t: t, key: make([]byte, 64), lie: tt.lie}
			_, _ = rand.Read(a.key)
			server := httptest.NewServer(http.HandlerFunc(a.serve))
			defer server.Close()
			conn, err := ssmsession.Dial(t.Context(), ssmsession.API{
				Start: func(context.Context) (ssmsession.Stream, error) {
					return ssmsession.Stream{ID: "s", URL: strings.Replace(server.URL, "http", "ws", 1), Token: "t"}, nil
				},
				Terminate: func(context.Context, string) error { return nil },
				DataKey: func(_ context.Context, session, key string) (plain, encrypted []byte, err error) {
					if session != "s" || key != "the-key" {
						t.Errorf("a key for %q of %q", session, key)
					}
					return a.key[:tt.size], []byte("encrypted"), tt.refused
				},
			})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			echo(t, conn, 100<<10)
			if _, err := io.WriteString(conn, "a plain text"); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(io.LimitReader(conn, 12)); err != nil || string(got) != "a plain text" {
				t.Errorf("got %q, %v", got, err)
			}
			conn.Close()
			server.CloseClientConnections()
			for _, b := range a.seen {
				if bytes.Contains(b, []byte("plain text")) {
					t.Error("it went in the clear")
				}
			}
		})
	}
}
