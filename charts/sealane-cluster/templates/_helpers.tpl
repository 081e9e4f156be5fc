{{/* The labels of an object; takes a dict: root, component. */}}
{{- define "sealane.labels" -}}
{{- $labels := dict
    "app.kubernetes.io/name" "sealane"
    "app.kubernetes.io/instance" .root.Release.Name
    "app.kubernetes.io/component" .component
    "app.kubernetes.io/version" .root.Chart.AppVersion
    "app.kubernetes.io/managed-by" .root.Release.Service
    "app.kubernetes.io/part-of" "sealane"
    "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_")) -}}
{{- toYaml (merge (dict) $labels .root.Values.commonLabels) -}}
{{- end -}}

{{/* The labels by which pods are found; they never change. Takes a dict: root, component. */}}
{{- define "sealane.selector" -}}
app.kubernetes.io/name: sealane
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The image. */}}
{{- define "sealane.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry -}}
{{- $path := ternary (printf "%s/%s" (trimSuffix "/" $registry) .Values.image.repository) .Values.image.repository (ne $registry "") -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $path .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What every pod is: nobody in particular, without rights on its node. 65532 is the image's user. */}}
{{- define "sealane.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Files on a volume stay their owner's alone: Sealane refuses keys that a group may read.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every container is not allowed. */}}
{{- define "sealane.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* How replicas are spread, where the values do not say it; takes a dict: root, component, given. */}}
{{- define "sealane.spread" -}}
{{- if .given -}}
{{- toYaml .given -}}
{{- else -}}
{{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "sealane.selector" $ | nindent 6 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The address families of a Service, by what its pods listen on: what only hears IPv4 must not be given an IPv6 address, at
which nobody answers. */}}
{{- define "sealane.families" -}}
{{- if hasPrefix "[" . -}}
ipFamilyPolicy: PreferDualStack
{{- else -}}
ipFamilyPolicy: SingleStack
ipFamilies: [IPv4]
{{- end -}}
{{- end -}}

{{/* Whether a text is an IPv6 address: `true`, or nothing. */}}
{{- define "sealane.ipv6" -}}
{{- $group := "[0-9a-fA-F]{1,4}" -}}
{{- $some := printf "^(%s(:%s)*)?$" $group $group -}}
{{- $halves := splitList "::" . -}}
{{- $groups := len (regexFindAll $group . -1) -}}
{{- $enough := ternary (eq $groups 8) (and (eq (len $halves) 2) (le $groups 7)) (eq (len $halves) 1) -}}
{{- if and $enough (regexMatch $some (first $halves)) (regexMatch $some (last $halves)) -}}
true
{{- end -}}
{{- end -}}

{{/* Refuses an address in brackets that is none; takes a dict: value (its name), address. */}}
{{- define "sealane.checkAddress" -}}
{{- $inner := regexFind "^\\[.*\\]" .address | trimPrefix "[" | trimSuffix "]" -}}
{{- if and $inner (not (include "sealane.ipv6" $inner)) -}}
{{- fail (printf "%s: %q is no IPv6 address; one is written as in [fd00::1]" .value .address) -}}
{{- end -}}
{{- end -}}

{{/* Refuses values that the schema can not judge. */}}
{{- define "sealane.check" -}}
{{- include "sealane.checkAddress" (dict "value" "agent.listenAddress" "address" .Values.agent.listenAddress) -}}
{{- include "sealane.checkAddress" (dict "value" "gateway.listenAddress" "address" .Values.gateway.listenAddress) -}}
{{- range .Values.join.servers -}}
{{- include "sealane.checkAddress" (dict "value" "join.servers" "address" .) -}}
{{- end -}}
{{- range .Values.cluster.gatewayAddresses -}}
{{- include "sealane.checkAddress" (dict "value" "cluster.gatewayAddresses" "address" .) -}}
{{- if regexMatch "^(0\\.0\\.0\\.0|\\[[0:]+\\]):" . -}}
{{- fail (printf "cluster.gatewayAddresses: %q is no address that others can dial; gateway.listenAddress says where it listens" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not .Values.cluster.gatewayAddresses) -}}
{{- fail "gateway.enabled needs cluster.gatewayAddresses, by which other clusters dial the gateway: HOST:PORT of its load balancer, or of a node and gateway.service.nodePort. Where a load balancer gets its address only later, state a DNS name, and let it lead there" -}}
{{- end -}}
{{- end -}}
