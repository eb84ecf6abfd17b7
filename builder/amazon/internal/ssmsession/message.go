package ssmsession

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The kinds of message.
const (
	inputData   = "input_stream_data"  // from here to the machine
	outputData  = "output_stream_data" // from the machine
	acknowledge = "acknowledge"
	closed      = "channel_closed"
	start       = "start_publication" // the machine's agent is there
	pause       = "pause_publication" // it is not; keep what there is to send
)

// The types of payload of stream data.
const (
	payloadData              = 1
	payloadHandshakeRequest  = 5
	payloadHandshakeResponse = 6
	payloadHandshakeComplete = 7
	payloadFlag              = 10
)

// The flags that a payload of type payloadFlag says, four bytes.
const (
	flagTerminateSession   = 2
	flagConnectToPortError = 3
)

// message is what goes over the data channel, each in one binary message of the
// WebSocket:
//
//	 0  header length, 116: where the payload's length is
//	 4  kind, 32 bytes, padded
//	36  version of this layout, 1
//	40  time, milliseconds of Unix
//	48  sequence number
//	56  flags: 1 for the first of a stream, 3 for an acknowledgement
//	64  id, a UUID with its halves swapped
//	80  SHA-256 of the payload
//	112 type of the payload
//	116 length of the payload
//	120 payload
//
// Numbers are big-endian.
type message struct {
	kind    string
	seq     int64
	flags   uint64
	id      uuid.UUID
	of      uint32 // type of the payload
	payload []byte
}

const (
	headerLength = 116
	headerSize   = headerLength + 4
)

func (m message) encode(now time.Time) []byte {
	b := make([]byte, headerSize, headerSize+len(m.payload))
	be := binary.BigEndian
	be.PutUint32(b, headerLength)
	copy(b[4:36], m.kind+strings.Repeat(" ", 32-len(m.kind)))
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], uint64(now.UnixMilli()))
	be.PutUint64(b[48:], uint64(m.seq))
	be.PutUint64(b[56:], m.flags)
	copy(b[64:72], m.id[8:])
	copy(b[72:80], m.id[:8])
	sum := sha256.Sum256(m.payload)
	copy(b[80:112], sum[:])
	be.PutUint32(b[112:], m.of)
	be.PutUint32(b[116:], uint32(len(m.payload)))
	return append(b, m.payload...)
}

// decode reads a message. The header may be longer than the one that is known.
// The payload is a part of b.
func decode(b []byte) (message, error) {
	be := binary.BigEndian
	if len(b) < headerSize {
		return message{}, fmt.Errorf("a message of %d bytes is too short", len(b))
	}
	at := int64(be.Uint32(b))
	if at < headerLength || at+4 > int64(len(b)) {
		return message{}, fmt.Errorf("a message of %d bytes has a header of %d", len(b), at)
	}
	m := message{kind: strings.TrimRight(string(b[4:36]), " \x00"), seq: int64(be.Uint64(b[48:])), flags: be.Uint64(b[56:]), of: be.Uint32(b[112:])}
	copy(m.id[8:], b[64:72])
	copy(m.id[:8], b[72:80])
	length := int64(be.Uint32(b[at:]))
	if length > int64(len(b))-at-4 {
		return message{}, fmt.Errorf("a payload of %d bytes does not fit in a message of %d", length, len(b))
	}
	m.payload = b[at+4 : at+4+length]
	// Some senders leave the digest out of messages that carry no stream.
	sum := sha256.Sum256(m.payload)
	if (m.kind == inputData || m.kind == outputData) && string(sum[:]) != string(b[80:112]) {
		return message{}, fmt.Errorf("the payload of message %d has been damaged on its way", m.seq)
	}
	return m, nil
}

// ack is the payload of an acknowledgement.
type ack struct {
	Kind       string `json:"AcknowledgedMessageType"`
	ID         string `json:"AcknowledgedMessageId"`
	Seq        int64  `json:"AcknowledgedMessageSequenceNumber"`
	Sequential bool   `json:"IsSequentialMessage"`
}

// acknowledging is the message that says that m has come.
func acknowledging(m message) (message, error) {
	payload, err := json.Marshal(ack{m.kind, m.id.String(), m.seq, true})
	return message{kind: acknowledge, flags: 3, id: uuid.New(), payload: payload}, err
}

// opening is the text that opens a data channel.
type opening struct {
	Schema        string `json:"MessageSchemaVersion"`
	RequestID     string `json:"RequestId"`
	Token         string `json:"TokenValue"`
	ClientID      string `json:"ClientId"`
	ClientVersion string `json:"ClientVersion"`
}

// clientVersion is what is said to the machine's agent. From 1.1.70 on an agent
// would carry several connections in one session, in frames of another protocol;
// before that a session is one connection, which is all that is needed here.
const clientVersion = "1.1.61.0"

// handshakeRequest is what the machine's agent wants to agree on.
type handshakeRequest struct {
	AgentVersion string
	Actions      []struct {
		Type       string          `json:"ActionType"`
		Parameters json.RawMessage `json:"ActionParameters"`
	} `json:"RequestedClientActions"`
}

type handshakeResponse struct {
	ClientVersion string
	Actions       []processed `json:"ProcessedClientActions"`
	Errors        []string
}

type processed struct {
	Type   string `json:"ActionType"`
	Status int    `json:"ActionStatus"`
	Result any    `json:"ActionResult"`
	Error  string
}

const (
	actionDone        = 1
	actionFailed      = 2
	actionUnsupported = 3
)

// answer processes the actions of a request. The error is what makes the session
// unusable.
func (r handshakeRequest) answer() (response handshakeResponse, err error) {
	response = handshakeResponse{ClientVersion: clientVersion, Actions: []processed{}, Errors: []string{}}
	for _, a := range r.Actions {
		p := processed{Type: a.Type, Status: actionDone}
		switch a.Type {
		case "SessionType":
			var session struct{ SessionType string }
			if e := json.Unmarshal(a.Parameters, &session); e != nil || session.SessionType != "Port" {
				p.Status, err = actionFailed, fmt.Errorf("the session is one of type %q, not a port", session.SessionType)
			}
		case "KMSEncryption":
			p.Status, err = actionUnsupported, fmt.Errorf("the session's document demands encryption with a KMS key of one's own, which is not built in; the channel is encrypted by TLS, and so is SSH in it")
		default:
			p.Status, err = actionUnsupported, fmt.Errorf("the agent demands %q, which is not built in", a.Type)
		}
		if p.Status != actionDone {
			p.Error = err.Error()
			response.Errors = append(response.Errors, p.Error)
		}
		response.Actions = append(response.Actions, p)
	}
	return response, err
}
