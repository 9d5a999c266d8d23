/** Something the reader can do something about; its message is a sentence that is shown as it is. */
export class Refusal extends Error {}
