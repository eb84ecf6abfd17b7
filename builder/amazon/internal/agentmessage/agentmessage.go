// Package agentmessage encodes and decodes the messages between a program and a
// machine's agent in a session of Session Manager.
package agentmessage

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The kinds of messages.
const (
	InputData   = "input_stream_data"  // from here to the machine
	OutputData  = "output_stream_data" // from the machine
	Acknowledge = "acknowledge"
	Closed      = "channel_closed"
	Start       = "start_publication" // the machine's agent is ready
	Pause       = "pause_publication" // it is not ready; keep unsent data
)

// The types of payload of stream data.
const (
	PayloadData              = 1
	PayloadHandshakeRequest  = 5
	PayloadHandshakeResponse = 6
	PayloadHandshakeComplete = 7
	PayloadChallenge         = 8 // encrypted random data
	PayloadChallengeResponse = 9 // the same data, encrypted with the other key
	PayloadFlag              = 10
)

// The values of a payload of type PayloadFlag, which has four bytes.
const (
	FlagTerminateSession   = 2
	FlagConnectToPortError = 3
)

// Message is a message on the data channel, sent as one binary message of the
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
type Message struct {
	Kind        string
	Seq         int64
	Flags       uint64
	ID          uuid.UUID
	PayloadType uint32 // type of the payload
	Payload     []byte
}

const (
	headerLength = 116
	headerSize   = headerLength + 4
)

// Encode encodes m with the time now.
func (m Message) Encode(now time.Time) []byte {
	b := make([]byte, headerSize, headerSize+len(m.Payload))
	be := binary.BigEndian
	be.PutUint32(b, headerLength)
	copy(b[4:36], m.Kind+strings.Repeat(" ", 32-len(m.Kind)))
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], uint64(now.UnixMilli()))
	be.PutUint64(b[48:], uint64(m.Seq))
	be.PutUint64(b[56:], m.Flags)
	copy(b[64:72], m.ID[8:])
	copy(b[72:80], m.ID[:8])
	sum := sha256.Sum256(m.Payload)
	copy(b[80:112], sum[:])
	be.PutUint32(b[112:], m.PayloadType)
	be.PutUint32(b[116:], uint32(len(m.Payload)))
	return append(b, m.Payload...)
}

// Decode decodes a message. Its header may be longer than the known one. The payload is
// a part of b.
func Decode(b []byte) (Message, error) {
	be := binary.BigEndian
	if len(b) < headerSize {
		return Message{}, fmt.Errorf("a message of %d bytes is too short", len(b))
	}
	at := int64(be.Uint32(b))
	if at < headerLength || at+4 > int64(len(b)) {
		return Message{}, fmt.Errorf("a message of %d bytes has a header of %d", len(b), at)
	}
	m := Message{Kind: strings.TrimRight(string(b[4:36]), " \x00"), Seq: int64(be.Uint64(b[48:])), Flags: be.Uint64(b[56:]), PayloadType: be.Uint32(b[112:])}
	copy(m.ID[8:], b[64:72])
	copy(m.ID[:8], b[72:80])
	length := int64(be.Uint32(b[at:]))
	if length > int64(len(b))-at-4 {
		return Message{}, fmt.Errorf("a payload of %d bytes does not fit in a message of %d", length, len(b))
	}
	m.Payload = b[at+4 : at+4+length]
	// Some senders omit the digest in messages that are not part of a stream.
	sum := sha256.Sum256(m.Payload)
	if (m.Kind == InputData || m.Kind == OutputData) && string(sum[:]) != string(b[80:112]) {
		return Message{}, fmt.Errorf("the payload of message %d was damaged in transit", m.Seq)
	}
	return m, nil
}

// Ack is the payload of an acknowledgement.
type Ack struct {
	Kind       string `json:"AcknowledgedMessageType"`
	ID         string `json:"AcknowledgedMessageId"`
	Seq        int64  `json:"AcknowledgedMessageSequenceNumber"`
	Sequential bool   `json:"IsSequentialMessage"`
}

// Acknowledging returns the acknowledgement of m.
func Acknowledging(m Message) (Message, error) {
	payload, err := json.Marshal(Ack{m.Kind, m.ID.String(), m.Seq, true})
	return Message{Kind: Acknowledge, Flags: 3, ID: uuid.New(), Payload: payload}, err
}
