package ssmsession

import (
	"encoding/json"
	"fmt"
)

// opening is the message that opens a data channel.
type opening struct {
	Schema        string `json:"MessageSchemaVersion"`
	RequestID     string `json:"RequestId"`
	Token         string `json:"TokenValue"`
	ClientID      string `json:"ClientId"`
	ClientVersion string `json:"ClientVersion"`
}

// clientVersion is the version sent to the machine's agent. From 1.1.70 on, an agent would
// multiplex several connections in one session, with another protocol; before that, a
// session is one connection, which is sufficient here.
const clientVersion = "1.1.61.0"

// handshakeRequest is the agent's request to negotiate a session.
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

// sealed is the result of an action of type KMSEncryption.
type sealed struct {
	Key []byte `json:"KMSCipherTextKey"`
}

// dataKey gets a data key, as [API.DataKey] does for the session.
type dataKey func(keyID string) (plain, encrypted []byte, err error)

// answer processes the actions of a request. An error means that the session cannot be
// used. If the agent requires encryption, keys are the keys for it.
func (r handshakeRequest) answer(newKey dataKey) (response handshakeResponse, keys *cipherKeys, err error) {
	response = handshakeResponse{ClientVersion: clientVersion, Actions: []processed{}, Errors: []string{}}
	for _, a := range r.Actions {
		p := processed{Type: a.Type, Status: actionDone}
		switch a.Type {
		case "SessionType":
			var session struct{ SessionType string }
			if e := json.Unmarshal(a.Parameters, &session); e != nil || session.SessionType != "Port" {
				p.Status, err = actionFailed, fmt.Errorf("the session has type %q, not Port", session.SessionType)
			}
		case "KMSEncryption":
			var result sealed
			var e error
			if keys, result.Key, e = agree(a.Parameters, newKey); e != nil {
				p.Status, err = actionFailed, e
				break
			}
			p.Result = result
		default:
			p.Status, err = actionUnsupported, fmt.Errorf("the agent requires %q, which bake does not support", a.Type)
		}
		if p.Status != actionDone {
			p.Error = err.Error()
			response.Errors = append(response.Errors, p.Error)
		}
		response.Actions = append(response.Actions, p)
	}
	return response, keys, err
}

// agree gets the data key of a session, and its encrypted form for the agent.
func agree(parameters []byte, newKey dataKey) (*cipherKeys, []byte, error) {
	var kms struct {
		KeyID string `json:"KMSKeyId"`
	}
	if err := json.Unmarshal(parameters, &kms); err != nil || kms.KeyID == "" {
		return nil, nil, fmt.Errorf("the agent requires encryption, but does not name a KMS key (%s)", parameters)
	}
	plain, encrypted, err := newKey(kms.KeyID)
	if err != nil {
		return nil, nil, fmt.Errorf("the session preferences require encryption with the KMS key %s: %w", kms.KeyID, err)
	}
	keys, err := newCipherKeys(plain)
	return keys, encrypted, err
}
