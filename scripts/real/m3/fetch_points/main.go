// Prints what one node of M3 has of series, asked over the protocol that nodes speak with each other:
// a node's JSON API cannot read what is on its disk.
//
// Reads a JSON request a line from stdin, {"namespace","id","startMs","endMs"}; answers each with a
// line, {"points": [[timeMs, value], …]} or {"error": "…"}.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/m3db/m3/src/dbnode/generated/thrift/rpc"
	"github.com/m3db/m3/src/dbnode/network/server/tchannelthrift/node/channel"
	"github.com/uber/tchannel-go"
	"github.com/uber/tchannel-go/thrift"
)

const timeout = 30 * time.Second

type request struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	StartMs   int64  `json:"startMs"`
	EndMs     int64  `json:"endMs"`
}

type answer struct {
	Points [][2]float64 `json:"points"`
	Error  string       `json:"error,omitempty"`
}

func main() {
	address := flag.String("address", "", "listenAddress of the node")
	flag.Parse()
	if err := run(*address); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address string) error {
	tchannels, err := tchannel.NewChannel("fetch_points", nil)
	if err != nil {
		return err
	}
	options := &thrift.ClientOptions{HostPort: address}
	node := rpc.NewTChanNodeClient(thrift.NewClient(tchannels, channel.ChannelName, options))
	lines := bufio.NewScanner(os.Stdin)
	encoder := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return err
		}
		if err := encoder.Encode(fetch(node, asked)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func fetch(node rpc.TChanNode, asked request) answer {
	ctx, cancel := thrift.NewContext(timeout)
	defer cancel()
	fetched, err := node.Fetch(ctx, &rpc.FetchRequest{
		NameSpace:      asked.Namespace,
		ID:             asked.ID,
		RangeStart:     asked.StartMs,
		RangeEnd:       asked.EndMs,
		RangeType:      rpc.TimeType_UNIX_MILLISECONDS,
		ResultTimeType: rpc.TimeType_UNIX_MILLISECONDS,
	})
	if err != nil {
		return answer{Points: [][2]float64{}, Error: err.Error()}
	}
	points := make([][2]float64, 0, len(fetched.Datapoints))
	for _, point := range fetched.Datapoints {
		points = append(points, [2]float64{float64(point.Timestamp), point.Value})
	}
	return answer{Points: points}
}
