#!/usr/bin/env bash
# A small real cluster on this machine, for trying the pipelines on other engines than the default.
#
#   scripts/cluster.sh flink|spark|prism up      downloads what is needed once, starts it, prints the flags for the pipelines
#   scripts/cluster.sh flink|spark|prism fetch   downloads it only
#   scripts/cluster.sh flink|spark|prism flags   prints them again
#   scripts/cluster.sh flink|spark|prism status  what runs (exit status 1 if anything does not)
#   scripts/cluster.sh flink|spark|prism down    stops it
#
# Exit status: 0, 1 if something failed, 2 for wrong arguments, 3 if something could not be downloaded.
# Everything listens on loopback alone, and everything it writes is in CLUSTER_DIR (default: .cluster beside this folder).
# Downloads: the engines from PyPI and Maven Central (needs java, mvn), Prism from the Go module proxy (needs go).
set -euo pipefail

# The versions, here and nowhere else. A job server and its cluster have to be of the version that its runner was built for.
BEAM_JAVA=${BEAM_JAVA:-2.62.0}    # Beam's runners on the JVM; they talk to the Python SDK in Beam's own protocol
FLINK=${FLINK:-1.19.3}            # PyPI: apache-flink-libraries
SPARK=${SPARK:-3.5.0}             # PyPI: pyspark
PRISM=${PRISM:-2.77.0}            # Beam's Go SDK

# Ports: --job_endpoint, Beam's worker pool, the engine's own, and its web page.
JOB_PORT=${JOB_PORT:-18099}
POOL_PORT=${POOL_PORT:-18500}
ENGINE_PORT=${ENGINE_PORT:-18077}
WEB_PORT=${WEB_PORT:-18081}

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CLUSTER_DIR=$(mkdir -p "${CLUSTER_DIR:-$ROOT/.cluster}" && cd "${CLUSTER_DIR:-$ROOT/.cluster}" && pwd)
FLINK_FILES="$CLUSTER_DIR/flink-$FLINK" FLINK_RUNNER="$CLUSTER_DIR/beam-flink-$BEAM_JAVA"
SPARK_FILES="$CLUSTER_DIR/spark-$SPARK" SPARK_RUNNER="$CLUSTER_DIR/beam-spark-$BEAM_JAVA"
PRISM_BINARY="$CLUSTER_DIR/prism-$PRISM"
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
START_TIMEOUT_S=120

fail() {
	echo "error: $*" >&2
	exit 1
}

not_to_be_had() { # with an exit status of its own, so that tests can tell it from an engine that fails
	echo "error: $*" >&2
	exit 3
}

need() { # need COMMAND WHAT_FOR
	command -v "$1" >/dev/null || not_to_be_had "found no $1, which $2 needs; install it"
}

# Downloads into a new directory and renames it, so that one that was interrupted is not taken for whole.
once() { # once DIRECTORY FUNCTION [ARGS]
	[ -d "$1" ] && return
	rm -rf "$1.part" && mkdir -p "$1.part"
	echo "downloading $(basename "$1") (once)" >&2
	"${@:2}" "$1.part" >"$CLUSTER_DIR/download.log" 2>&1 || {
		tail -3 "$CLUSTER_DIR/download.log" >&2
		not_to_be_had "$(basename "$1") could not be downloaded; all that was said is in $CLUSTER_DIR/download.log"
	}
	mv "$1.part" "$1"
}

from_pypi() { # from_pypi REQUIREMENT DIRECTORY
	"$PYTHON" -m pip install --disable-pip-version-check --no-deps --target "$2" "$1"
}

from_maven() { # from_maven ARTIFACT DIRECTORY: Beam's runner with all that it depends on
	cat >"$2/pom.xml" <<-XML
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>local</groupId><artifactId>job-server</artifactId><version>1</version>
		  <dependencies><dependency>
		    <groupId>org.apache.beam</groupId><artifactId>$1</artifactId><version>$BEAM_JAVA</version>
		  </dependency></dependencies>
		</project>
	XML
	mvn --batch-mode --file "$2/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$2"
}

from_go() { # from_go MODULE@VERSION DIRECTORY
	GOBIN="$2" GOFLAGS=-mod=mod go install "$1"
}

# Starts a process in a group of its own, so that `down` also ends what it has started.
start() { # start NAME COMMAND...
	setsid "${@:2}" >"$RUN/$1.log" 2>&1 </dev/null &
	echo $! >"$RUN/$1.pid"
}

alive() { # alive PID_FILE
	kill -0 "$(cat "$1")" 2>/dev/null
}

answers() { # answers PORT
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

wait_for() { # wait_for NAME TEST...: until the test says yes, or the process has ended
	local until=$((SECONDS + START_TIMEOUT_S))
	until "${@:2}"; do
		if ! alive "$RUN/$1.pid" || [ $SECONDS -ge $until ]; then
			tail -5 "$RUN/$1.log" >&2
			down
			fail "$1 did not start; see $RUN/$1.log"
		fi
		sleep 0.3
	done
}

start_pool() { # starts a Python worker wherever the engine asks for one, with this Python
	PATH="$(dirname "$PYTHON"):$PATH" PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" TF_CPP_MIN_LOG_LEVEL=3 \
		start pool "$PYTHON" -m scripts.worker_pool "$POOL_PORT"
	wait_for pool answers "$POOL_PORT"
}

fetch_flink() {
	need java Flink && need mvn "Beam's job server"
	once "$FLINK_FILES" from_pypi "apache-flink-libraries==$FLINK"
	once "$FLINK_RUNNER" from_maven "beam-runners-flink-${FLINK%.*}"
}

up_flink() {
	fetch_flink
	local conf="$RUN/conf"
	mkdir -p "$conf"
	# A restart waits for longer than a heartbeat: earlier, tasks would be sent again to the TaskManager that has died.
	cat >"$conf/config.yaml" <<-YAML
		jobmanager.rpc.address: 127.0.0.1
		jobmanager.bind-host: 127.0.0.1
		jobmanager.rpc.port: $ENGINE_PORT
		taskmanager.host: 127.0.0.1
		taskmanager.bind-host: 127.0.0.1
		rest.address: 127.0.0.1
		rest.bind-address: 127.0.0.1
		rest.port: $WEB_PORT
		taskmanager.numberOfTaskSlots: 2
		taskmanager.cpu.cores: 1.0
		taskmanager.memory.framework.heap.size: 128mb
		taskmanager.memory.framework.off-heap.size: 128mb
		taskmanager.memory.task.heap.size: 512mb
		taskmanager.memory.task.off-heap.size: 0mb
		taskmanager.memory.network.min: 256mb
		taskmanager.memory.network.max: 256mb
		taskmanager.memory.managed.size: 256mb
		taskmanager.memory.jvm-metaspace.size: 256mb
		taskmanager.memory.jvm-overhead.min: 128mb
		taskmanager.memory.jvm-overhead.max: 128mb
		cluster.evenly-spread-out-slots: true
		restart-strategy.type: fixed-delay
		restart-strategy.fixed-delay.attempts: 3
		restart-strategy.fixed-delay.delay: 10 s
		heartbeat.interval: 2000
		heartbeat.timeout: 8000
		io.tmp.dirs: $RUN
		blob.storage.directory: $RUN
	YAML
	local opens=(--add-exports=java.base/sun.net.util=ALL-UNNAMED)
	for package in java.lang java.net java.io java.nio java.text java.time java.util java.util.concurrent java.lang.reflect; do
		opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
	done
	local flink=(java "${opens[@]}" -cp "$FLINK_FILES/pyflink/lib/*")
	start jobmanager "${flink[@]}" -Xmx512m org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint --configDir "$conf"
	wait_for jobmanager answers "$WEB_PORT"
	for number in 1 2; do
		start "taskmanager-$number" "${flink[@]}" -Xmx640m -XX:MaxDirectMemorySize=512m \
			org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir "$conf" -D "taskmanager.resource-id=taskmanager-$number"
	done
	wait_for taskmanager-2 flink_has_two
	start_pool
	start job-server java "${opens[@]}" -Xmx1g -cp "$FLINK_RUNNER/*" org.apache.beam.runners.flink.FlinkJobServerDriver --job-host 127.0.0.1 \
		--job-port "$JOB_PORT" --artifact-port 0 --expansion-port 0 --artifacts-dir "$RUN/artifacts" --flink-master "127.0.0.1:$WEB_PORT"
	wait_for job-server answers "$JOB_PORT"
	remember_flags --runner=FlinkRunner --parallelism=2
}

flink_has_two() {
	"$PYTHON" -c "
import json, urllib.request
found = json.load(urllib.request.urlopen('http://127.0.0.1:$WEB_PORT/overview', timeout=5))
raise SystemExit(found['taskmanagers'] != 2)" 2>/dev/null
}

fetch_spark() {
	need java Spark && need mvn "Beam's job server"
	once "$SPARK_FILES" from_pypi "pyspark==$SPARK"
	once "$SPARK_RUNNER" from_maven beam-runners-spark-3
}

up_spark() {
	fetch_spark
	export SPARK_HOME="$SPARK_FILES/pyspark" SPARK_LOCAL_IP=127.0.0.1 SPARK_WORKER_DIR="$RUN/work" SPARK_LOCAL_DIRS="$RUN/tmp"
	start master "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.master.Master \
		--host 127.0.0.1 --port "$ENGINE_PORT" --webui-port "$WEB_PORT"
	wait_for master answers "$WEB_PORT"
	for number in 1 2; do
		start "worker-$number" "$SPARK_HOME/bin/spark-class" org.apache.spark.deploy.worker.Worker \
			--host 127.0.0.1 --cores 1 --memory 1g --webui-port 0 "spark://127.0.0.1:$ENGINE_PORT"
	done
	wait_for worker-2 spark_has_two
	start_pool
	local opens=()
	for package in java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.util java.util.concurrent \
		java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar; do
		opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
	done
	start job-server java "${opens[@]}" -Xmx1g -Dspark.executor.memory=512m -cp "$SPARK_RUNNER/*:$SPARK_HOME/jars/*" \
		org.apache.beam.runners.spark.SparkJobServerDriver --job-host 127.0.0.1 --job-port "$JOB_PORT" --artifact-port 0 \
		--expansion-port 0 --artifacts-dir "$RUN/artifacts" --spark-master-url "spark://127.0.0.1:$ENGINE_PORT"
	wait_for job-server answers "$JOB_PORT"
	remember_flags --runner=SparkRunner
}

spark_has_two() {
	"$PYTHON" -c "
import json, urllib.request
found = json.load(urllib.request.urlopen('http://127.0.0.1:$WEB_PORT/json/', timeout=5))
raise SystemExit(found['aliveworkers'] != 2)" 2>/dev/null
}

fetch_prism() {
	need go Prism
	once "$PRISM_BINARY" from_go "github.com/apache/beam/sdks/v2/go/cmd/prism@v$PRISM"
}

up_prism() {
	fetch_prism
	start_pool
	start prism "$PRISM_BINARY/prism" --job_port "$JOB_PORT" --web_port "$WEB_PORT" --idle_shutdown_timeout=-1ms
	wait_for prism answers "$JOB_PORT"
	remember_flags --runner=PrismRunner
}

remember_flags() { # remember_flags FLAG...: those of this engine, before those that all of them need
	local common=("--job_endpoint=127.0.0.1:$JOB_PORT" --environment_type=EXTERNAL "--environment_config=127.0.0.1:$POOL_PORT")
	echo "$* ${common[*]}" >"$RUN/flags"
}

up() {
	if compgen -G "$RUN/*.pid" >/dev/null; then
		status >/dev/null || fail "a part of $ENGINE has ended (see status); end the rest first: $0 $ENGINE down"
		fail "$ENGINE is up already; its flags: $(cat "$RUN/flags")"
	fi
	local ports=("$JOB_PORT" "$POOL_PORT" "$ENGINE_PORT" "$WEB_PORT")
	[ "$(printf '%s\n' "${ports[@]}" | grep -xE '[0-9]+' | sort -u | wc -l)" = 4 ] || fail "expected four different ports, found ${ports[*]}"
	for port in "${ports[@]}"; do
		if answers "$port"; then fail "something listens on port $port already; is another cluster up?"; fi
	done
	[ -x "$PYTHON" ] || fail "found no Python in .venv; \`make test\` makes it, or say which: PYTHON=/path/to/python"
	rm -rf "$RUN" && mkdir -p "$RUN"
	"up_$ENGINE"
	echo "$ENGINE is up (http://127.0.0.1:$WEB_PORT); logs are in $RUN. Give the pipelines these flags:" >&2
	cat "$RUN/flags"
}

down() {
	local file
	for file in "$RUN"/*.pid; do
		[ -e "$file" ] || continue
		kill -TERM -- "-$(cat "$file")" 2>/dev/null || true
	done
	for file in "$RUN"/*.pid; do
		[ -e "$file" ] || continue
		for _ in $(seq 50); do alive "$file" && sleep 0.1 || break; done
		kill -KILL -- "-$(cat "$file")" 2>/dev/null || true
		rm -f "$file"
	done
}

status() {
	local file bad=0
	compgen -G "$RUN/*.pid" >/dev/null || { echo "$ENGINE is down"; return 1; }
	for file in "$RUN"/*.pid; do
		if alive "$file"; then echo "$(basename "$file" .pid) runs (process $(cat "$file"))"; else
			echo "$(basename "$file" .pid) has ended; see ${file%.pid}.log"
			bad=1
		fi
	done
	return $bad
}

ENGINE=${1:-} RUN="$CLUSTER_DIR/run-${1:-}"
case "$ENGINE:${2:-}" in
flink:up | spark:up | prism:up | flink:down | spark:down | prism:down | flink:status | spark:status | prism:status) "$2" ;;
flink:fetch | spark:fetch | prism:fetch) "fetch_$ENGINE" ;;
flink:flags | spark:flags | prism:flags) cat "$RUN/flags" 2>/dev/null || fail "$ENGINE is down" ;;
*)
	echo "error: expected flink, spark or prism, and up, fetch, down, status or flags, found '$*'" >&2
	exit 2
	;;
esac
