// How many durable appends of 512 bytes a second Tessera makes on a POSIX folder: tessera <folder> [callers] [seconds]
package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

func argument(at, otherwise int) int {
	if len(os.Args) <= at {
		return otherwise
	}
	number, err := strconv.Atoi(os.Args[at])
	if err != nil {
		log.Fatal(err)
	}
	return number
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/transparency-dev/tessera" {
				return dep.Version
			}
		}
	}
	return "unknown"
}

func main() {
	ctx := context.Background()
	callers, seconds := argument(2, 256), argument(3, 5)
	secret, _, err := note.GenerateKey(rand.Reader, "bench.example/log")
	if err != nil {
		log.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		log.Fatal(err)
	}
	driver, err := posix.New(ctx, posix.Config{Path: os.Args[1]})
	if err != nil {
		log.Fatal(err)
	}
	// A batch as large as there are callers, and no waiting for more: the settings that were fastest of those tried.
	options := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithCheckpointInterval(time.Second).
		WithBatching(uint(callers), 5*time.Millisecond)
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		log.Fatal(err)
	}
	var number, done atomic.Uint64
	var group sync.WaitGroup
	start := time.Now()
	for range callers {
		group.Go(func() {
			entry := make([]byte, 512)
			for time.Since(start) < time.Duration(seconds)*time.Second {
				entry := append([]byte(nil), entry...)
				binary.BigEndian.PutUint64(entry, number.Add(1))
				if _, err := appender.Add(ctx, tessera.NewEntry(entry))(); err != nil {
					log.Fatal(err)
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	fmt.Println(version(), float64(done.Load())/time.Since(start).Seconds())
	if err := shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
