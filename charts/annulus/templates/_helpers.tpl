{{- define "annulus.labels" -}}
app.kubernetes.io/name: annulus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "annulus.selector" -}}
app.kubernetes.io/name: annulus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- /* One name for everything of the release: several releases may share a cluster, each in its namespace. */}}
{{- define "annulus.fullname" -}}
{{- $name := default "annulus" .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- /* dict "root" $ "image" .Values.x.image */}}
{{- define "annulus.image" -}}
{{- with .root.Values.image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}

{{- /* The webhook's Service, Secret and configurations. */}}
{{- define "annulus.webhook" -}}
{{ include "annulus.fullname" . }}-webhook
{{- end }}

{{- /* dict "root" $ "path" "/validate/x" "rule" .Values.admission.webhook.x: what all webhooks have in common. The operator
puts the caBundle in. */}}
{{- define "annulus.webhook.common" -}}
clientConfig:
  service:
    name: {{ include "annulus.webhook" .root }}
    namespace: {{ .root.Release.Namespace }}
    path: {{ .path }}
    port: 443
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
failurePolicy: {{ .rule.failurePolicy }}
timeoutSeconds: {{ .root.Values.admission.webhook.timeoutSeconds }}
{{- end }}

{{- /* Namespaces that are asked about: never Kubernetes' own and the operator's; only those that it looks after. */}}
{{- define "annulus.webhook.namespaces" -}}
- key: kubernetes.io/metadata.name
  operator: NotIn
  values: [kube-system, kube-public, kube-node-lease, {{ .Release.Namespace }}]
{{- with .Values.operator.namespaces }}
- key: kubernetes.io/metadata.name
  operator: In
  values: [{{ join ", " . }}]
{{- end }}
{{- end }}
