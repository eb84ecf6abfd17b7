package ssm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"bake/cloud/wire"
)

// session is the instance's end of a port forwarding session, which on AWS is implemented by the
// Systems Manager agent. The fields below the line are used only by run.
type session struct {
	id       string
	caller   wire.Caller
	target   string
	port     uint16
	machines Machines
	token    string // for the next WebSocket; guarded by the service's lock

	attach chan *websocket.Conn
	stop   chan struct{} // closed to end the session
	once   sync.Once
	ended  chan struct{}

	// ---

	ws        *websocket.Conn // nil while the client is disconnected
	incoming  chan frame
	machine   net.Conn // nil until the handshake is complete
	toMachine chan []byte
	output    chan []byte // data from the machine; closed at its end
	finished  bool        // output has been closed
	out       []*unconfirmed
	nextOut   int64
	nextIn    int64
	early     map[int64]received
}

// frame is a message received on a WebSocket; data is nil if the connection broke.
type frame struct {
	ws   *websocket.Conn
	data []byte
}

type received struct {
	of      uint32
	payload []byte
}

// unconfirmed is a message that the client has not acknowledged.
type unconfirmed struct {
	seq  int64
	data []byte
	last time.Time
}

const (
	away       = 10 * time.Minute // how long a client may be disconnected
	again      = 250 * time.Millisecond
	inFlight   = 512  // unacknowledged messages
	ahead      = 4096 // messages that wait for an earlier one, or for the machine
	chunk      = 1024 // bytes of the stream in a message
	writeLimit = 10 * time.Second
)

// Payload types and flags: see the constants of the same names in Amazon's
// session-manager-plugin.
const (
	typeOutput            = 1
	typeHandshakeRequest  = 5
	typeHandshakeResponse = 6
	typeHandshakeComplete = 7
	typeFlag              = 10

	disconnectToPort   = 1
	terminateSession   = 2
	connectToPortError = 3
)

func (p *session) terminate() { p.once.Do(func() { close(p.stop) }) }

// run serves the session until it ends.
func (p *session) run() {
	p.incoming, p.toMachine = make(chan frame, 256), make(chan []byte, ahead)
	p.early = map[int64]received{}
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		close(p.ended)
		cancel()
		if p.ws != nil {
			_ = p.ws.Close(websocket.StatusNormalClosure, "") // the client has been sent the reason
		}
		if p.machine != nil {
			_ = p.machine.Close() // nothing is left to flush
		}
	}()
	p.send(ctx, typeHandshakeRequest, []byte(`{"AgentVersion":"3.2.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":`+
		fmt.Sprintf(`{"SessionType":"Port","Properties":{"portNumber":"%d","type":"LocalPortForwarding"}}}]}`, p.port)))
	ticks := time.NewTicker(again / 5)
	defer ticks.Stop()
	gone := time.Now()
	for {
		output := p.output
		if len(p.out) >= inFlight {
			output = nil
		}
		select {
		case ws := <-p.attach:
			p.detach(p.ws)
			p.ws = ws
			ws.SetReadLimit(1 << 20)
			go p.read(ctx, ws)
			for _, o := range p.out {
				o.last = time.Time{}
			}
		case f := <-p.incoming:
			switch {
			case f.ws != p.ws: // from a WebSocket that has been replaced
			case f.data == nil:
				p.detach(f.ws)
				gone = time.Now()
			case !p.receive(ctx, f.data):
				return
			}
		case b, open := <-output:
			if !open {
				p.output, p.finished = nil, true
				continue
			}
			p.send(ctx, typeOutput, b)
		case now := <-ticks.C:
			p.resend(ctx, now)
			if p.ws == nil && now.Sub(gone) > away {
				return
			}
			if p.finished && len(p.out) == 0 {
				p.close(ctx, "The connection to the port has ended.")
				return
			}
		case <-p.stop:
			p.close(ctx, "The session was terminated.")
			return
		}
	}
}

func (p *session) detach(ws *websocket.Conn) {
	if ws != nil {
		_ = ws.CloseNow() // broken or replaced
	}
	if p.ws == ws {
		p.ws = nil
	}
}

func (p *session) read(ctx context.Context, ws *websocket.Conn) {
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			data = nil
		}
		select {
		case p.incoming <- frame{ws, data}:
		case <-ctx.Done():
			return
		}
		if data == nil {
			return
		}
	}
}

// pack encodes a message. For the fields, see the client's side in Amazon's
// session-manager-plugin.
func pack(kind string, seq int64, flags uint64, of uint32, payload []byte) []byte {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	be := binary.BigEndian
	data := be.AppendUint32(nil, 116)
	data = append(data, fmt.Sprintf("%-32s", kind)...)
	data = be.AppendUint32(data, 1)
	data = be.AppendUint64(data, uint64(time.Now().UnixMilli()))
	data = be.AppendUint64(data, uint64(seq))
	data = be.AppendUint64(data, flags)
	data = append(append(data, id[8:]...), id[:8]...)
	sum := sha256.Sum256(payload)
	data = append(data, sum[:]...)
	data = be.AppendUint32(data, of)
	data = be.AppendUint32(data, uint32(len(payload)))
	return append(data, payload...)
}

// write sends data if the client is connected. Lost data is sent again later.
func (p *session) write(ctx context.Context, data []byte) {
	if p.ws == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if p.ws.Write(ctx, websocket.MessageBinary, data) != nil {
		p.detach(p.ws)
	}
}

func (p *session) send(ctx context.Context, of uint32, payload []byte) {
	var flags uint64
	if p.nextOut == 0 {
		flags = 1
	}
	data := pack("output_stream_data", p.nextOut, flags, of, payload)
	p.out = append(p.out, &unconfirmed{p.nextOut, data, time.Now()})
	p.nextOut++
	p.write(ctx, data)
}

func (p *session) resend(ctx context.Context, now time.Time) {
	for _, o := range p.out {
		if p.ws != nil && now.Sub(o.last) > again {
			o.last = now
			p.write(ctx, o.data)
		}
	}
}

// close tells the client that the session has ended.
func (p *session) close(ctx context.Context, why string) {
	payload, err := json.Marshal(map[string]any{"MessageType": "channel_closed", "SessionId": p.id, "SchemaVersion": 1, "Output": why})
	if err == nil { // marshalling strings never fails
		data := pack("channel_closed", 0, 3, 0, payload)
		p.write(ctx, data)
	}
}

// receive handles a message; it returns false at the end of the session. A damaged message
// is ignored: the client sends it again.
func (p *session) receive(ctx context.Context, b []byte) bool {
	be := binary.BigEndian
	if len(b) < 120 || be.Uint32(b) != 116 || int(be.Uint32(b[116:])) != len(b)-120 {
		return true
	}
	payload := b[120:]
	if sum := sha256.Sum256(payload); string(sum[:]) != string(b[80:112]) {
		return true
	}
	seq := int64(be.Uint64(b[48:]))
	switch strings.TrimRight(string(b[4:36]), " \x00") {
	case "acknowledge":
		var ack struct{ AcknowledgedMessageSequenceNumber int64 }
		if json.Unmarshal(payload, &ack) != nil {
			return true
		}
		for i, o := range p.out {
			if o.seq == ack.AcknowledgedMessageSequenceNumber {
				p.out = append(p.out[:i], p.out[i+1:]...)
				break
			}
		}
	case "input_stream_data":
		if len(p.early) >= ahead || len(p.toMachine) > ahead-len(p.early)-2 {
			return true // no room; the client will send it again
		}
		id := append(append([]byte(nil), b[72:80]...), b[64:72]...)
		text := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
		reply := pack("acknowledge", 0, 3, 0, fmt.Appendf(nil,
			`{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"%s","AcknowledgedMessageSequenceNumber":%d,"IsSequentialMessage":true}`, text, seq))
		p.write(ctx, reply)
		if seq >= p.nextIn {
			p.early[seq] = received{be.Uint32(b[112:]), payload}
		}
		for {
			next, ok := p.early[p.nextIn]
			if !ok {
				break
			}
			delete(p.early, p.nextIn)
			p.nextIn++
			if !p.process(ctx, next) {
				return false
			}
		}
	}
	return true
}

// process handles the next message of the client's stream, in order; it returns false at
// the end of the session.
func (p *session) process(ctx context.Context, m received) bool {
	switch m.of {
	case typeHandshakeResponse:
		if p.machine != nil {
			return true
		}
		var err error
		if p.machine, err = p.machines.DialManaged(ctx, p.caller, p.target, p.port); err != nil {
			p.send(ctx, typeFlag, binary.BigEndian.AppendUint32(nil, connectToPortError))
			p.close(ctx, fmt.Sprintf("Connecting to port %d failed.", p.port))
			return false
		}
		p.output = make(chan []byte)
		go p.readMachine(ctx, p.machine, p.output)
		go p.writeMachine(ctx, p.machine)
		p.send(ctx, typeHandshakeComplete, []byte(`{"HandshakeTimeToComplete":1000000,"CustomerMessage":""}`))
	case typeOutput:
		p.toMachine <- m.payload // receive has made sure that there is room
	case typeFlag:
		if len(m.payload) == 4 {
			flag := binary.BigEndian.Uint32(m.payload)
			return flag != terminateSession && flag != disconnectToPort
		}
	}
	return true
}

func (p *session) readMachine(ctx context.Context, machine net.Conn, output chan<- []byte) {
	defer close(output)
	for {
		b := make([]byte, chunk)
		n, err := machine.Read(b)
		if n > 0 {
			select {
			case output <- b[:n]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *session) writeMachine(ctx context.Context, machine net.Conn) {
	for {
		select {
		case b := <-p.toMachine:
			if _, err := machine.Write(b); err != nil {
				return // the reader sees the error too and reports it
			}
		case <-ctx.Done():
			return
		}
	}
}
